"""What is done with each `usage.recorded`: claimed, sent, recorded, told; in this order."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from nexus_contracts import Event, EventData, UsageRecorded, read_event
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_messaging.message import Delivery, Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, HandedBack, Outcome
from nexus_messaging.topology import INTERNAL, TIERS
from stripe_reporter.answers import Answer, Receipt
from stripe_reporter.entries import Entry
from stripe_reporter.fence import (
    BeingCalled,
    Call,
    Counted,
    Fenced,
    Held,
    Taken,
    TooOld,
    may_start,
)
from stripe_reporter.gate import Gate
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import LaneFullError, Lanes
from stripe_reporter.meanings import Meaning, Then, meaning_of
from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.pace import Pacing
from stripe_reporter.progress import Progress
from stripe_reporter.reports import Report, rejected, reported

PAUSES_HERE: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before each further call of a report that has to wait a moment only."""

log = structlog.get_logger()


class UnexpectedAnswerError(Exception):
    """Stripe answered what only a mistake of ours or of the set-up explains."""


class Stripe(Protocol):
    """Where reports are sent."""

    async def send(self, report: Report, key_n: int) -> Answer:
        """Make one call and return what came back."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was made, what its answer meant, and the report's row after it."""

    meaning: Meaning
    at: datetime
    entry: Entry


class Reporter:
    """Sends reports to Stripe."""

    def __init__(
        self,
        journal: Journal,
        stripe: Stripe,
        publisher: Publisher,
        gate: Gate,
        pacing: Pacing,
        lanes: Lanes,
        metrics: ReporterMetrics,
        progress: Progress,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._stripe = stripe
        self._publisher = publisher
        self._gate = gate
        self._pacing = pacing
        self._lanes = lanes
        self._metrics = metrics
        self._progress = progress
        self._now = now

    async def report_usage(self, delivery: Delivery) -> Outcome:
        """Send the report in ``delivery`` unless it was sent, and tell what Stripe said.

        Raises:
            PermanentError: Stripe refused it, or it must not be sent any more.
            TransientError: it can be sent later.
            GateShutError: nothing can be sent now.
            DatabaseUnavailableError: nothing can be claimed now.
            UnexpectedAnswerError: retried within the message's budget.
        """
        report = Report.of(read_event(delivery.message.body, [UsageRecorded]).data)
        try:
            with self._progress.working():
                async with self._lanes.turn(report.lane):
                    return await self._conclude(report, await self._sent(report))
        except LaneFullError:
            self._metrics.handled("lane_full")
            return HandedBack()

    async def _sent(self, report: Report) -> Answered | Held:
        for pause in PAUSES_HERE:
            result = await self._try(report)
            if not (isinstance(result, Answered) and result.meaning.then is Then.WAIT_HERE):
                return result
            await asyncio.sleep(pause)
        return await self._try(report)

    async def _try(self, report: Report) -> Answered | Held:
        async with self._pacing.turn():
            self._gate.require_open()
        async with self._gate.passage():
            decision = await self._journal.claim(report, self._now())
            return await self._call(decision) if isinstance(decision, Call) else decision

    async def _call(self, call: Call) -> Answered:
        began = time.perf_counter()
        if may_start(call, self._now()):
            answer = await self._stripe.send(call.report, call.entry.key_n)
        else:
            answer = Answer(Receipt.NEVER_SENT)
        meaning = meaning_of(answer)
        self._progress.moved()
        self._metrics.called(meaning, time.perf_counter() - began)
        self._gate.note(meaning, call.report.identifier, call.report.facts.meter)
        if meaning.slows:
            self._pacing.slow_down()
        at = self._now()
        return Answered(meaning, at, await self._journal.record(call, meaning, at))

    async def _conclude(self, report: Report, result: Answered | Held) -> Outcome:
        match result:
            case Answered():
                return await self._follow(report, result)
            case Counted(at, ever_unknown):
                await self._tell(reported(report, at=at, ever_unknown=ever_unknown))
                self._metrics.handled("reported_again")
                return Done()
            case TooOld(attempts):
                raise await self._rejection(
                    report, Reason.TIMESTAMP_TOO_OLD, attempts, ever_unknown=False
                )
            case Fenced(since):
                self._metrics.handled("fenced")
                raise PermanentError(
                    Reason.OUTCOME_UNKNOWN,
                    f"a call's outcome is unknown since {since.isoformat(timespec='seconds')}: "
                    "look at Stripe whether it was counted",
                )
            case Taken():
                self._metrics.handled("taken")
                raise PermanentError(
                    Reason.EVENT_ID_TAKEN, "identifier: the journal has it for another report"
                )
            case BeingCalled():
                self._metrics.handled("deferred")
                raise TransientError("another copy is being sent", tier=TIERS[0])

    async def _follow(self, report: Report, answered: Answered) -> Outcome:
        meaning = answered.meaning
        if meaning.then is Then.REPORT:
            await self._tell(
                reported(report, at=answered.at, ever_unknown=answered.entry.ever_unknown)
            )
            self._metrics.handled("reported")
            self._metrics.counted((answered.at - report.facts.occurred_at).total_seconds())
            return Done()
        if meaning.reason is not None:
            raise await self._rejection(
                report,
                meaning.reason,
                answered.entry.attempts,
                ever_unknown=answered.entry.ever_unknown,
            )
        self._metrics.handled("waiting")
        if meaning.closes is not None:
            self._gate.require_open()
        if meaning.then is Then.TRY_FEW:
            log.error("unexpected_answer", answer=meaning.name)
            raise UnexpectedAnswerError(meaning.name)
        tier = TIERS[-1] if meaning.then is Then.WAIT_LONGEST else None
        raise TransientError(f"Stripe: {meaning.signal.says}", tier=tier)

    async def _rejection(
        self, report: Report, reason: Reason, attempts: int, *, ever_unknown: bool
    ) -> PermanentError:
        """Publish the refusal and return what dead-letters the message: the outcome comes first."""
        await self._tell(
            rejected(
                report,
                at=self._now(),
                reason=reason,
                ever_unknown=ever_unknown,
                attempts=attempts,
            )
        )
        self._metrics.handled("rejected")
        return PermanentError(reason, "refused by Stripe" if attempts else "never sent")

    async def _tell(self, event: Event[EventData]) -> None:
        """Publish an outcome.

        Raises:
            TransientError: not confirmed; the journal makes doing all of this again harmless.
        """
        try:
            await self._publisher.publish(Publication(INTERNAL, event.type, Message.of(event)))
        except PublishError as error:
            raise TransientError(f"the outcome could not be told: {error}") from None
