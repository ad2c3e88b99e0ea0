"""One delivery of a report to a reporter of its own, halted where a process may die or freeze.

The reference predicts each step just before it is taken.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry
from typing_extensions import override

from model.environment import Environment
from model.reference import CALL_STARTS, Key, Reference, Stripe
from nexus_contracts import (
    UsageRecorded,
    UsageRejected,
    UsageRejectedLater,
    UsageReported,
    read_event,
)
from nexus_messaging.errors import PermanentError, PublishError, TransientError
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.retry import Done
from nexus_service.work import WorkRegistry
from nexus_stripe.answers import StripeAnswer
from stripe_reporter.circuit import CircuitBreaker, CircuitOpenError
from stripe_reporter.fence import (
    AlreadyCounted,
    Call,
    CallInProgress,
    Decision,
    Entry,
    Fenced,
    IdentifierReused,
    RefusedByHand,
    RejectedLater,
    TooOld,
)
from stripe_reporter.handlers import Reporter
from stripe_reporter.limits import CustomerLimit, StripeRateLimit
from stripe_reporter.outcomes import UnexpectedAnswerError
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import Journal
from stripe_reporter.stripe.responses import TABLE, Next, Response, response_to

Outcome = UsageReported | UsageRejected | UsageRejectedLater

VERDICTS: Final[dict[type[Decision], str]] = {
    Call: "called",
    AlreadyCounted: "counted",
    RejectedLater: "rejected later",
    RefusedByHand: "not counted",
    CallInProgress: "being called",
    Fenced: "fenced",
    TooOld: "too old",
    IdentifierReused: "taken",
}

FATES: Final = {
    "counted": "done",
    "rejected later": "done",
    "not counted": "done",
    "being called": "later",
    "fenced": "dead",
    "too old": "dead",
}
"""The result of a delivery that may not call, which is known without Stripe."""


def answer_of(name: str) -> StripeAnswer:
    """Return an answer that means the row ``name`` of the table."""
    pattern = next(row.to for row in TABLE if row.name == name)
    answer = StripeAnswer(
        pattern.receipt,
        status=pattern.statuses[0] if pattern.statuses else 300,
        type=pattern.type,
        wording=pattern.wording,
        limited_by="global-rate" if pattern.limited else None,
    )
    assert response_to(answer).name == name
    return answer


class Published(Publisher):
    """Keeps published outcomes; the broker may store one without a confirm, or not at all."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.arrives = True
        self.confirmed = True

    @override
    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Keep the outcomes, if they arrive."""
        kinds: list[type[Outcome]] = [UsageReported, UsageRejected, UsageRejectedLater]
        events = [read_event(each.message.body, kinds) for each in publications]
        if self.arrives:
            self.outcomes += [event.data for event in events]
        confirmed = self.arrives and self.confirmed
        return [None if confirmed else PublishError("not confirmed") for _ in events]


class PredictedJournal(Journal):
    """The journal; its decisions are compared with the reference's, then the process may freeze."""

    def __init__(self, delivery: "ReportDelivery", environment: Environment) -> None:
        super().__init__(environment.journal)
        self._delivery = delivery

    @override
    async def claim(self, report: Report, now: datetime) -> Decision:
        """Claim as the journal does."""
        verdict = self._delivery.reference.begin_call(self._delivery.key, now)
        decision = await super().claim(report, now)
        assert VERDICTS[type(decision)] == verdict
        self._delivery.fate = FATES.get(verdict, "")
        if isinstance(decision, Call):
            await self._delivery.halt("claimed")
        return decision

    @override
    async def record(self, call: Call, response: Response, at: datetime) -> Entry:
        """Record as the journal does."""
        ours = self._delivery.reference.end_call(self._delivery.key, call.entry.attempts, response)
        entry = await super().record(call, response, at)
        settled = {Next.REPORT: "done", Next.REJECT: "dead"}.get(response.next, "later")
        self._delivery.fate = settled if ours else "later"
        return entry


class ReportDelivery:
    """A delivery in progress.

    ``reaches``: whether Stripe receives the call. ``place``: where the delivery halts. ``fate``:
    the expected end of the message. ``truth``: Stripe's answer, if it received the call.
    """

    def __init__(
        self,
        environment: Environment,
        reference: Reference,
        stripe: Stripe,
        key: Key,
        now: Callable[[], datetime],
    ) -> None:
        self.reference = reference
        self.key = key
        self.published = Published()
        self.place = self.fate = ""
        self.reaches = True
        self.truth: str | None = None
        self._stripe = stripe
        self._now = now
        self._arrived = asyncio.Event()
        self._go_on: asyncio.Future[Any] | None = None
        self._reporter = Reporter(
            PredictedJournal(self, environment),
            self,
            self.published,
            CircuitBreaker(
                frozenset({key[1]}), _no_probe, clock=lambda: 0.0, changed=lambda _: None
            ),
            StripeRateLimit(1000.0, lambda: 0.0),
            CustomerLimit(lambda: 0.0),
            environment.metrics,
            WorkRegistry(CollectorRegistry(), service="model").add("report"),
            now=now,
        )
        self._task: asyncio.Task[Any] | None = None

    async def start(self, report: UsageRecorded) -> None:
        """Deliver ``report`` and follow it to where it halts or ends."""
        self._task = asyncio.create_task(self._reporter.report_usage(report))
        await self._follow()

    async def go_on(self, answer: StripeAnswer | None = None) -> None:
        """Continue from where it halts, with Stripe's ``answer`` if it halts in the call."""
        assert self._go_on is not None
        self._go_on.set_result(answer)
        await self._follow()

    async def crash(self) -> None:
        """Let its process die."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self.place = "crashed"

    async def halt(self, place: str) -> Any:
        """Stay at ``place`` until it is continued."""
        self.place, self._go_on = place, asyncio.get_running_loop().create_future()
        self._arrived.set()
        return await self._go_on

    async def send(self, report: Report, key_n: int) -> StripeAnswer:
        """Act as Stripe, or as the broken connection to it."""
        row, now = self.reference.journal[self.key], self._now()
        assert (row.state, row.key_n) == ("calling", key_n)
        assert now - row.started < CALL_STARTS + timedelta(milliseconds=1)
        self.truth = self._stripe.receive(report, now, key_n) if self.reaches else None
        answer: StripeAnswer = await self.halt("called")
        return answer

    async def _follow(self) -> None:
        assert self._task is not None
        self.place = ""
        self._arrived.clear()
        arrival = asyncio.create_task(self._arrived.wait())
        await asyncio.wait({self._task, arrival}, return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()
        if self._task.done():
            self.place = "ended"
            self._check_end(self._task)

    def _check_end(self, ended: asyncio.Task[Any]) -> None:
        error = ended.exception()
        match error:
            case None:
                assert ended.result() == Done()
                fate = "done"
            case PermanentError():
                fate = "dead"
            case TransientError() | CircuitOpenError() | UnexpectedAnswerError():
                fate = "later"
            case _:
                raise error
        confirmed = self.published.arrives and self.published.confirmed
        assert fate == self.fate or (fate == "later" and not confirmed)
        row = self.reference.journal.get(self.key)
        for outcome in self.published.outcomes:
            if isinstance(outcome, UsageRejectedLater):
                assert row is not None
                assert row.rejected_later
                continue
            assert outcome.ever_unknown == bool(row and row.unknown_since and not row.found_missing)
            assert isinstance(outcome, UsageReported) or not outcome.ever_unknown
            assert isinstance(outcome, UsageReported) == bool(row and row.state == "accepted")


async def _no_probe() -> tuple[StripeAnswer, frozenset[str]]:
    raise AssertionError("no circuit is probed: each delivery has a reporter of its own")


def with_new_key(answer: StripeAnswer) -> StripeAnswer:
    """Return ``answer`` with Stripe-Should-Retry: false, so that a new key is needed."""
    return replace(answer, should_retry=False)
