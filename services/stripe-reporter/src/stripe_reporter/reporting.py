"""What is done with each `usage.recorded`: claimed, sent, recorded, told; in this order."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from nexus_contracts import UsageRecorded
from nexus_database import RowRefusedError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, HandedBack, Outcome
from nexus_messaging.topology import TIERS
from nexus_service.work import Work
from nexus_stripe.answers import Answer, Receipt
from stripe_reporter.entries import Entry
from stripe_reporter.fence import (
    BeingCalled,
    Call,
    Counted,
    Fenced,
    Held,
    NotCounted,
    Taken,
    TooOld,
    may_start,
)
from stripe_reporter.gate import Gate
from stripe_reporter.journal import Journal
from stripe_reporter.lanes import LaneFullError, Lanes
from stripe_reporter.meanings import Meaning, Then, meaning_of, told
from stripe_reporter.metrics import SEND, ReporterMetrics
from stripe_reporter.outcomes import Outcomes
from stripe_reporter.pace import Pacing
from stripe_reporter.reports import Report

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
    """A call that was made, what its answer meant (``told`` to people), and the row after it."""

    meaning: Meaning
    at: datetime
    entry: Entry
    told: str


class Reporter:
    """Sends reports to Stripe."""

    def __init__(
        self,
        journal: Journal,
        stripe: Stripe,
        outcomes: Outcomes,
        gate: Gate,
        pacing: Pacing,
        lanes: Lanes,
        metrics: ReporterMetrics,
        work: Work,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._stripe = stripe
        self._outcomes = outcomes
        self._gate = gate
        self._pacing = pacing
        self._lanes = lanes
        self._metrics = metrics
        self._work = work
        self._now = now

    async def report_usage(self, usage: UsageRecorded) -> Outcome:
        """Send a report unless it was sent, and publish what Stripe answered.

        Raises:
            PermanentError: Stripe refused it, or it must not be sent any more.
            TransientError: it can be sent later.
            GateShutError: nothing can be sent now.
            DatabaseUnavailableError: nothing can be claimed now.
            UnexpectedAnswerError: retried within the message's budget.
        """
        report = Report.of(usage)
        try:
            with self._work.round():
                async with self._lanes.turn(report.lane):
                    result = await self._sent(report)
                # The next one's call need not wait until this one's outcome is told.
                return await self._conclude(report, result)
        except LaneFullError as full:
            self._metrics.handled("lane_full")
            return HandedBack(TIERS[0] if full.soon else TIERS[1])

    async def _sent(self, report: Report) -> Answered | Held:
        for pause in PAUSES_HERE:
            result = await self._try(report)
            if not (isinstance(result, Answered) and result.meaning.then is Then.WAIT_HERE):
                return result
            await asyncio.sleep(pause)
        return await self._try(report)

    async def _try(self, report: Report) -> Answered | Held:
        began = time.perf_counter()
        async with self._pacing.turn():
            self._gate.require_open()  # also for those who waited while it was being shut
        self._metrics.waited(time.perf_counter() - began)
        try:
            decision = await self._journal.claim(report, self._now())
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None
        return await self._call(decision) if isinstance(decision, Call) else decision

    async def _call(self, call: Call) -> Answered | BeingCalled:
        began = time.perf_counter()
        if may_start(call, self._now()):
            answer = await self._stripe.send(call.report, call.entry.key_n)
        else:
            answer = Answer(Receipt.NEVER_SENT)
        meaning = meaning_of(answer)
        self._work.moved()
        self._metrics.called(SEND, meaning, time.perf_counter() - began)
        self._gate.note(meaning, call.report.identifier, call.report.facts.meter)
        if meaning.slows:
            self._pacing.slow_down()
        at = self._now()
        entry = await self._journal.record(call, meaning, at)
        if entry.attempts != call.entry.attempts or entry.answered_at != at:
            # Taken over, or counted, meanwhile: the next delivery goes by what the row says then.
            return BeingCalled()
        return Answered(meaning, at, entry, told(answer))

    async def _conclude(self, report: Report, result: Answered | Held) -> Outcome:
        match result:
            case Answered(Meaning(then=Then.REPORT), at, entry, _):
                await self._outcomes.reported(report, at=at, ever_unknown=entry.ever_unknown)
                self._metrics.counted((at - report.facts.occurred_at).total_seconds())
                return self._done("reported")
            case Counted(at, ever_unknown):
                await self._outcomes.reported(report, at=at, ever_unknown=ever_unknown)
                return self._done("reported_again")
            case Answered(Meaning(reason=Reason() as reason), _, entry, text):
                raise await self._rejected(report, reason, entry, text)
            case Answered(meaning, _, _, text):
                raise self._put_off(meaning, text)
            case TooOld(before):
                text = "occurred_at: older than 35 days, not sent"
                raise await self._rejected(report, Reason.TIMESTAMP_TOO_OLD, before, text)
            case NotCounted(entry):
                reason = Reason(entry.reason or Reason.REFUSED_BY_STRIPE)
                await self._tell_refusal(report, reason, entry)
                return Done()
            case BeingCalled() | Fenced() | Taken():
                raise self._held(report, result)

    def _done(self, how: str) -> Outcome:
        self._metrics.handled(how)
        return Done()

    async def _rejected(
        self, report: Report, reason: Reason, entry: Entry | None, text: str
    ) -> PermanentError:
        """Tell of the refusal, then return what dead-letters the message.

        After a call of unknown outcome there is nothing to tell: that call may have been counted.
        """
        if entry is not None and entry.first_unknown_at is not None:
            return self._in_doubt(report, entry.first_unknown_at, f"{text}; ")
        await self._tell_refusal(report, reason, entry)
        return PermanentError(reason, text, subject=report.facts.stripe_customer_id)

    async def _tell_refusal(self, report: Report, reason: Reason, entry: Entry | None) -> None:
        await self._outcomes.rejected(
            report,
            reason,
            at=self._now(),
            ever_unknown=entry is not None and entry.ever_unknown,
            attempts=entry.attempts if entry is not None else 0,
        )
        self._metrics.handled("rejected")

    def _in_doubt(self, report: Report, since: datetime, before: str = "") -> PermanentError:
        """Return what dead-letters a report that may have been counted: a person has to look."""
        self._metrics.handled("fenced")
        moment = since.isoformat(timespec="seconds")
        text = f"{before}unknown since {moment} whether Stripe has it"
        subject = report.facts.stripe_customer_id
        return PermanentError(Reason.OUTCOME_UNKNOWN, text, subject=subject)

    def _held(self, report: Report, why: BeingCalled | Fenced | Taken) -> Exception:
        match why:
            case BeingCalled():
                self._metrics.handled("deferred")
                return TransientError("another copy is being sent", tier=TIERS[0])
            case Taken():
                self._metrics.handled("taken")
                text = "identifier: the journal has it for another report"
                return PermanentError(Reason.EVENT_ID_TAKEN, text)
            case Fenced(since):
                return self._in_doubt(report, since)

    def _put_off(self, meaning: Meaning, text: str) -> Exception:
        self._metrics.handled("waiting")
        if meaning.closes is not None:
            self._gate.require_open()
        if meaning.then is Then.TRY_FEW:
            log.error("unexpected_answer", answer=meaning.name)
            return UnexpectedAnswerError(meaning.name)
        tier = TIERS[-1] if meaning.then is Then.WAIT_LONGEST else None
        return TransientError(text, tier=tier)
