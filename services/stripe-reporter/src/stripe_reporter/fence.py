"""Whether a report may be sent to Stripe now, and what a call and its answer make of its row.

Pure: decided from the report's row in the journal and the time alone.

Stripe keeps identifiers unique for a rolling period of "at least 24 hours" and no longer
(https://docs.stripe.com/api/billing/meter-event/create). A call of unknown outcome may have been
counted; repeating it is harmless within that period and may charge twice after it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nexus_stripe.answer_classes import Effect
from stripe_reporter.reports import Facts, Report
from stripe_reporter.stripe.responses import Response

FENCE: Final = timedelta(hours=23)
"""No call later than this after the first call of unknown outcome began. The hour until 24 is for
differing clocks and for calls under way."""

MAX_AGE: Final = timedelta(days=35) - timedelta(minutes=10)
"""Stripe refuses events more than 35 days old; the minutes are for clocks and calls under way."""

CALL_STARTS_WITHIN: Final = timedelta(seconds=5)
"""From the claim to the call. A process that was frozen in between must not call when it wakes:
another process may have taken the report over."""

CALL_LIFETIME: Final = timedelta(seconds=20)
"""From the claim of a report until its answer is written: 5 s to start, 10 s until the call times
out, 5 s to write. A row that says ``calling`` for longer has lost its caller."""

BY_HAND: Final = "by_hand"
"""The ``answer`` of a row that a person settled after a look at Stripe (docs/runbook.md)."""


class State(StrEnum):
    """What the journal knows of a report's calls."""

    CALLING = "calling"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Entry:
    """A report's row in the journal.

    ``key_n`` is the number of the running call's idempotency key, or else of the next call's.
    ``first_unknown_at`` is when the first call of unknown outcome began; it is never cleared.
    ``answered_at`` and ``answer`` (a name in the table of responses) are absent while ``calling``.
    ``accepted_key_n`` is the number of the key whose call Stripe answered that it counted it; rows
    of release 0.1 and those that a person settled have none. ``rejected_later`` is Stripe's code if
    it said afterwards that it does not count what it had accepted; it is never taken back.
    """

    facts: Facts
    request_digest: bytes
    state: State
    key_n: int
    attempts: int
    started_at: datetime
    first_unknown_at: datetime | None = None
    answered_at: datetime | None = None
    answer: str | None = None
    reason: str | None = None
    accepted_key_n: int | None = None
    rejected_later: str | None = None
    rejected_later_at: datetime | None = None

    @property
    def ever_unknown(self) -> bool:
        """Whether some call's outcome was unknown, unless a person found that none was counted."""
        return self.first_unknown_at is not None and not self.refused_by_hand

    @property
    def refused_by_hand(self) -> bool:
        """Whether a person found that Stripe has counted no call for it."""
        return self.state is State.REFUSED and self.answer == BY_HAND

    def lost_caller(self, now: datetime) -> bool:
        """Whether it says ``calling`` for longer than any call lasts."""
        return self.state is State.CALLING and now - self.started_at > CALL_LIFETIME

    def unknown_since(self, now: datetime) -> datetime | None:
        """Return when the first call of unknown outcome began; a lost caller's counts as one."""
        if self.first_unknown_at is not None:
            return self.first_unknown_at
        return self.started_at if self.lost_caller(now) else None

    def after(self, called: "Entry", response: Response, at: datetime) -> "Entry":
        """Return the row after the call that was claimed as ``called`` got its answer.

        If another call has begun since, only an acceptance counts: the row of the later call says
        more than any other answer to the earlier one.
        """
        current = self.state is State.CALLING and self.attempts == called.attempts
        if not current and (response.effect is not Effect.APPLIED or self.state is State.ACCEPTED):
            return self
        unknown = self.started_at if response.effect is Effect.UNKNOWN else None
        first_unknown_at = self.first_unknown_at or unknown
        state = _state_after(response, ever_unknown=first_unknown_at is not None)
        reason = response.reason if state is State.REFUSED else None
        return replace(
            self,
            state=state,
            key_n=self.key_n if response.same_key else self.key_n + 1,
            first_unknown_at=first_unknown_at,
            answered_at=at,
            answer=response.name,
            reason=reason.value if reason else None,
            accepted_key_n=called.key_n if state is State.ACCEPTED else None,
        )


def _state_after(response: Response, *, ever_unknown: bool) -> State:
    if response.effect is Effect.APPLIED:
        return State.ACCEPTED
    # A refusal says nothing about an earlier call of unknown outcome, not even that there is no
    # such customer: that call may have been counted before the customer was deleted.
    return State.UNKNOWN if ever_unknown else State.REFUSED


@dataclass(frozen=True, slots=True)
class Call:
    """Call Stripe, once ``entry`` is committed to the journal."""

    report: Report
    entry: Entry


@dataclass(frozen=True, slots=True)
class AlreadyCounted:
    """Stripe has counted it; only the outcome is published again."""

    at: datetime
    ever_unknown: bool


@dataclass(frozen=True, slots=True)
class RejectedLater:
    """Stripe took it, and said later that it does not count it; only that is published again."""

    code: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RefusedByHand:
    """A person found that Stripe has not counted it; only the refusal is published."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class CallInProgress:
    """Another delivery's call is under way."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A call's outcome has been unknown for too long to repeat the call."""

    unknown_since: datetime


@dataclass(frozen=True, slots=True)
class TooOld:
    """Stripe takes no event of that age, and no earlier call was counted."""

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class IdentifierReused:
    """The identifier belongs to a report with other contents."""


NoCall = (
    AlreadyCounted
    | RejectedLater
    | RefusedByHand
    | CallInProgress
    | Fenced
    | TooOld
    | IdentifierReused
)
"""Why there is no call now."""

Decision = Call | NoCall


def decide(report: Report, entry: Entry | None, now: datetime) -> Decision:
    """Decide whether ``report``, whose row in the journal is ``entry``, may be sent at ``now``."""
    young = now - report.facts.occurred_at < MAX_AGE
    if entry is None:
        return Call(report, calling(report, None, now)) if young else TooOld(None)
    if entry.facts != report.facts:
        return IdentifierReused()
    if settled := _settled(entry):
        return settled
    if entry.state is State.CALLING and not entry.lost_caller(now):
        return CallInProgress()
    since = entry.unknown_since(now)
    if since is not None and (now - since >= FENCE or not young):
        return Fenced(since)
    return Call(report, calling(report, entry, now)) if young else TooOld(entry)


def _settled(entry: Entry) -> AlreadyCounted | RejectedLater | RefusedByHand | None:
    if entry.rejected_later is not None and entry.rejected_later_at is not None:
        return RejectedLater(entry.rejected_later, entry.rejected_later_at)
    if entry.state is State.ACCEPTED and entry.answered_at is not None:
        return AlreadyCounted(entry.answered_at, entry.ever_unknown)
    return RefusedByHand(entry) if entry.refused_by_hand else None


def calling(report: Report, before: Entry | None, now: datetime) -> Entry:
    """Return the row that says ``report`` is being called, after the row ``before``."""
    digest = report.request_digest()
    if before is None:
        return Entry(report.facts, digest, State.CALLING, key_n=1, attempts=1, started_at=now)
    return Entry(
        facts=before.facts,
        request_digest=digest,
        state=State.CALLING,
        # Stripe refuses a key that comes with other parameters than before.
        key_n=before.key_n if before.request_digest == digest else before.key_n + 1,
        attempts=before.attempts + 1,
        started_at=now,
        first_unknown_at=before.unknown_since(now),
    )


def may_start(call: Call, now: datetime) -> bool:
    """Whether the claim of ``call`` is recent enough to call; checked right before the call."""
    return now - call.entry.started_at <= CALL_STARTS_WITHIN
