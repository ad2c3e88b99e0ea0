"""What stripe-reporter consumes: each `usage.recorded` is claimed, sent, recorded and answered."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Protocol

import structlog
from faststream import Context

from nexus_contracts import Event, MeterErrorsFound, UsageRecorded
from nexus_messaging.errors import PublishError, TransientError
from nexus_messaging.outgoing import OutgoingEvent
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.retry import Done, HandedBack, Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import METER_ERRORS_QUEUE, TIERS, USAGE_RECORDED_QUEUE
from nexus_service.work import Work
from nexus_stripe.answers import Receipt, StripeAnswer
from stripe_reporter import outcomes
from stripe_reporter.circuit import CircuitBreaker
from stripe_reporter.fence import Call, CallInProgress, NoCall, may_start
from stripe_reporter.group_commit import GroupCommit
from stripe_reporter.limits import CustomerBusyError, CustomerLimit, StripeRateLimit
from stripe_reporter.metrics import SEND, ReporterMetrics
from stripe_reporter.outcomes import Answered, UnexpectedAnswerError, conclude
from stripe_reporter.rejecting import Rejecter
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.responses import Next, Response, describe, response_to

PREFETCH: Final = 200
"""Reports in hand. At 900 calls a second and 0.2 s each, 180 calls are under way."""

PREFETCH_ERRORS: Final = 5
"""Stripe tells of a meter's errors at most every few seconds."""

SHORT_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further call of a report that Stripe will take in a moment."""

router = Router()

log = structlog.get_logger()


class Stripe(Protocol):
    """Where reports are sent."""

    async def send(self, report: Report, key_n: int) -> StripeAnswer:
        """Make one call and return what came back."""


class Reporter:
    """Sends reports to Stripe."""

    def __init__(
        self,
        journal: Journal,
        stripe: Stripe,
        publisher: Publisher,
        circuit: CircuitBreaker,
        rate_limit: StripeRateLimit,
        customer_limit: CustomerLimit,
        metrics: ReporterMetrics,
        work: Work,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._stripe = stripe
        self._outcomes: GroupCommit[Publication, PublishError | None] = GroupCommit(
            publisher.publish_all, errors_of_one=()
        )
        self._circuit = circuit
        self._rate_limit = rate_limit
        self._customer_limit = customer_limit
        self._metrics = metrics
        self._work = work
        self._now = now

    async def report_usage(self, recorded: UsageRecorded) -> Outcome:
        """Send a report unless it was sent, and publish what Stripe answered.

        Raises:
            PermanentError: Stripe refused it, or it must not be sent any more.
            TransientError: it can be sent later, or the outcome was not confirmed by the broker.
            CircuitOpenError: nothing can be sent now.
            DatabaseUnavailableError: nothing can be claimed now.
            UnexpectedAnswerError: retried within the message's budget.
        """
        try:
            with self._work.round():
                return await self._report(Report.of(recorded))
        except CustomerBusyError as busy:
            self._metrics.handled("customer_busy")
            return HandedBack(TIERS[0] if busy.soon else TIERS[1])

    async def _report(self, report: Report) -> Outcome:
        """Wait for its turn, claim, call, record, publish: each is committed before the next."""
        result: Answered | NoCall
        pauses = iter(SHORT_PAUSES)
        async with self._customer_limit.slot(report.customer_and_meter):
            while True:
                began = time.perf_counter()
                async with self._rate_limit.turn():
                    self._circuit.require_closed()  # it may have opened while this one waited
                self._metrics.waited(time.perf_counter() - began)

                decision = await self._journal.claim(report, self._now())
                if not isinstance(decision, Call):
                    result = decision
                    break
                response, text = await self._send(decision)

                at = self._now()
                entry = await self._journal.record(decision, response, at)
                if entry.attempts != decision.entry.attempts or entry.answered_at != at:
                    # Taken over or counted meanwhile: the next delivery goes by the row.
                    result = CallInProgress()
                    break
                result = Answered(response, at, entry, text)
                pause = next(pauses, None) if response.next is Next.RETRY_HERE else None
                if pause is None:
                    break
                await asyncio.sleep(pause)

        # The customer's next call need not wait until this outcome is published.
        conclusion = conclude(report, result, circuit=self._circuit.cause, now=self._now())
        if conclusion.event is not None:
            await self._publish(conclusion.event)
        self._metrics.handled(conclusion.outcome, conclusion.counted_after)
        if isinstance(conclusion.error, UnexpectedAnswerError):
            log.error("unexpected_answer", answer=str(conclusion.error))
        if conclusion.error is not None:
            raise conclusion.error
        return Done()

    async def _send(self, call: Call) -> tuple[Response, str]:
        """Make the call; return the response to its answer, and what came back for people."""
        began = time.perf_counter()
        if may_start(call, self._now()):
            answer = await self._stripe.send(call.report, call.entry.key_n)
        else:
            answer = StripeAnswer(Receipt.NEVER_SENT)
        response = response_to(answer)
        self._work.note_progress()
        self._metrics.called(SEND, response, time.perf_counter() - began)
        self._circuit.note(response.opens, call.report.identifier, call.report.facts.meter)
        if response.slows_down:
            self._rate_limit.slow_down()
        return response, describe(answer)

    async def _publish(self, event: outcomes.Outcome) -> None:
        """Publish an outcome, together with those that other reports end with meanwhile."""
        outgoing, failure = OutgoingEvent(event), None
        try:
            failure = await self._outcomes.submit(outgoing.publication)
        finally:
            outgoing.end(failure)
        if failure is not None:
            # The journal makes it harmless to do all of it again.
            raise TransientError(f"the outcome could not be published: {failure}")


@router.subscriber(USAGE_RECORDED_QUEUE, prefetch=PREFETCH)
async def report_usage(
    event: Event[UsageRecorded], reporter: Annotated[Reporter, Context()]
) -> Outcome:
    """Send a report to Stripe unless it was sent, and publish what Stripe answered."""
    return await reporter.report_usage(event.data)


@router.subscriber(METER_ERRORS_QUEUE, prefetch=PREFETCH_ERRORS)
async def hear_errors(
    event: Event[MeterErrorsFound], rejecter: Annotated[Rejecter, Context()]
) -> Outcome:
    """Fetch and keep what Stripe says of a meter's errors. Raises what ``hear`` raises."""
    await rejecter.hear(event.data)
    return Done(event.source)
