"""One delivery of a report to a reporter of its own, halted wherever a process may die or freeze.

Each step of it is predicted by the reference just before it is taken.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry

from model.reference import CALL_STARTS, Key, Reference, Stripe
from model.stage import Stage
from nexus_contracts import Event, EventData, UsageRecorded, UsageRejected, UsageReported
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.retry import Done
from nexus_service.work import Works
from nexus_stripe.answers import Answer
from stripe_reporter.entries import Entry
from stripe_reporter.fence import (
    BeingCalled,
    Call,
    Counted,
    Decision,
    Fenced,
    NotCounted,
    Taken,
    TooOld,
)
from stripe_reporter.gate import Gate, GateShutError
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import Lanes
from stripe_reporter.meanings import TABLE, Meaning, Then, meaning_of
from stripe_reporter.outcomes import Outcomes
from stripe_reporter.pace import Pacing
from stripe_reporter.reporting import Reporter, UnexpectedAnswerError
from stripe_reporter.reports import Report

Outcome = UsageReported | UsageRejected

VERDICTS: Final[dict[type[Decision], str]] = {
    Call: "called",
    Counted: "counted",
    NotCounted: "not counted",
    BeingCalled: "being called",
    Fenced: "fenced",
    TooOld: "too old",
    Taken: "taken",
}

FATES: Final = {
    "counted": "done",
    "not counted": "done",
    "being called": "later",
    "fenced": "dead",
    "too old": "dead",
}
"""What becomes of a delivery that may not call: its end is known without asking Stripe."""


def answer_of(name: str) -> Answer:
    """Return an answer that means the row ``name`` of the table."""
    signal = next(row.signal for row in TABLE if row.name == name)
    answer = Answer(
        signal.receipt,
        status=signal.statuses[0] if signal.statuses else 300,
        type=signal.type,
        wording=signal.wording,
        limited_by="global-rate" if signal.limited else None,
    )
    assert meaning_of(answer).name == name
    return answer


class Told(Outcomes):
    """Keeps what is told; the broker may take it and not say so, or not even take it."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.arrives = True
        self.confirmed = True

    async def _publish(self, event: Event[EventData]) -> None:
        assert isinstance(event.data, UsageReported | UsageRejected)
        if self.arrives:
            self.outcomes.append(event.data)
        if not (self.arrives and self.confirmed):
            raise TransientError("the outcome could not be told")


class PredictedJournal(Journal):
    """The journal, its decisions held against the reference's; then the process may freeze."""

    def __init__(self, flight: "Flight", stage: Stage) -> None:
        super().__init__(stage.journal)
        self._flight = flight

    async def claim(self, report: Report, now: datetime) -> Decision:
        """Claim as the journal does."""
        verdict = self._flight.reference.begin_call(self._flight.key, now)
        decision = await super().claim(report, now)
        assert VERDICTS[type(decision)] == verdict
        self._flight.fate = FATES.get(verdict, "")
        if isinstance(decision, Call):
            await self._flight.halt("claimed")
        return decision

    async def record(self, call: Call, meaning: Meaning, at: datetime) -> Entry:
        """Record as the journal does."""
        ours = self._flight.reference.end_call(self._flight.key, call.entry.attempts, meaning)
        entry = await super().record(call, meaning, at)
        settled = {Then.REPORT: "done", Then.REJECT: "dead"}.get(meaning.then, "later")
        self._flight.fate = settled if ours else "later"
        return entry


class Flight:
    """A delivery under way.

    ``reaches``: whether Stripe gets the call. ``place``: where it halts. ``fate``: what is to
    become of the message. ``truth``: what Stripe answered, if it got the call.
    """

    def __init__(
        self,
        stage: Stage,
        reference: Reference,
        stripe: Stripe,
        key: Key,
        now: Callable[[], datetime],
    ) -> None:
        self.reference = reference
        self.key = key
        self.told = Told()
        self.place = self.fate = ""
        self.reaches = True
        self.truth: str | None = None
        self._stripe = stripe
        self._now = now
        self._arrived = asyncio.Event()
        self._go_on: asyncio.Future[Any] | None = None
        self._reporter = Reporter(
            PredictedJournal(self, stage),
            self,
            self.told,
            Gate(frozenset({key[1]}), _no_probe, clock=lambda: 0.0, changed=lambda _: None),
            Pacing(1000.0, lambda: 0.0),
            Lanes(lambda: 0.0),
            stage.metrics,
            Works(CollectorRegistry(), service="model").add("report"),
            now=now,
        )
        self._task: asyncio.Task[Any] | None = None

    async def take_off(self, report: UsageRecorded) -> None:
        """Deliver ``report`` and follow it to where it halts or ends."""
        self._task = asyncio.create_task(self._reporter.report_usage(report))
        await self._follow()

    async def go_on(self, answer: Answer | None = None) -> None:
        """Let it go on from where it halts, with Stripe's ``answer`` if it halts in the call."""
        assert self._go_on is not None
        self._go_on.set_result(answer)
        await self._follow()

    async def crash(self) -> None:
        """Let its process die where it is."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self.place = "crashed"

    async def halt(self, place: str) -> Any:
        """Stay at ``place`` until it is let go."""
        self.place, self._go_on = place, asyncio.get_running_loop().create_future()
        self._arrived.set()
        return await self._go_on

    async def send(self, report: Report, key_n: int) -> Answer:
        """Be Stripe, or the broken line to it."""
        row, now = self.reference.journal[self.key], self._now()
        assert (row.state, row.key_n) == ("calling", key_n)
        assert now - row.started < CALL_STARTS + timedelta(milliseconds=1)
        self.truth = self._stripe.receive(report, now) if self.reaches else None
        answer: Answer = await self.halt("called")
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
            self._judge(self._task)

    def _judge(self, ended: asyncio.Task[Any]) -> None:
        error = ended.exception()
        match error:
            case None:
                assert ended.result() == Done()
                fate = "done"
            case PermanentError():
                fate = "dead"
            case TransientError() | GateShutError() | UnexpectedAnswerError():
                fate = "later"
            case _:
                raise error
        untold = fate == "later" and not (self.told.arrives and self.told.confirmed)
        assert fate == self.fate or untold
        row = self.reference.journal.get(self.key)
        for told in self.told.outcomes:
            assert told.ever_unknown == bool(row and row.unknown_since and not row.by_hand)
            assert isinstance(told, UsageReported) or not told.ever_unknown
            assert isinstance(told, UsageReported) == bool(row and row.state == "accepted")


async def _no_probe() -> tuple[Answer, frozenset[str]]:
    raise AssertionError("no gate is probed: each delivery has a reporter of its own")


def with_new_key(answer: Answer) -> Answer:
    """Return ``answer`` with Stripe's word that the same key will never get another one."""
    return replace(answer, should_retry=False)
