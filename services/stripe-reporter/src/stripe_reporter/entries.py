"""A report's row in the journal, and what a call and its answer make of it: pure values."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from stripe_reporter.meanings import Effect, Meaning
from stripe_reporter.reports import Facts, Report

CALL_LIFETIME: Final = timedelta(seconds=20)
"""From the claim of a report until its answer is written: 5 s to start, 10 s until the call times
out, 5 s to write. A row that says ``calling`` for longer has lost its caller."""


BY_HAND: Final = "by_hand"
"""The ``answer`` of a row that a person settled, having looked at Stripe (docs/runbook.md)."""


class State(StrEnum):
    """What the journal knows of a report's calls."""

    CALLING = "calling"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Entry:
    """A report's row in the journal.

    ``key_n`` is the number of the running call's idempotency key, or else of the next one's.
    ``first_unknown_at`` is when the first call of unknown outcome began; it is never cleared.
    ``answered_at`` and ``answer`` (a name in the table of meanings) are absent while ``calling``.
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

    @property
    def ever_unknown(self) -> bool:
        """Whether some call's outcome was unknown, unless a person found that none was counted."""
        return self.first_unknown_at is not None and not self.settled_as_refused

    @property
    def settled_as_refused(self) -> bool:
        """Whether a person found that Stripe has counted no call of it."""
        return self.state is State.REFUSED and self.answer == BY_HAND

    def unknown_since(self, now: datetime) -> datetime | None:
        """Return when the first call began whose outcome nobody knew, a lost caller's included."""
        if self.first_unknown_at is not None:
            return self.first_unknown_at
        return self.started_at if self.lost_caller(now) else None

    def lost_caller(self, now: datetime) -> bool:
        """Whether it says ``calling`` for longer than any call lasts."""
        return self.state is State.CALLING and now - self.started_at > CALL_LIFETIME

    def answered(self, attempts: int, meaning: Meaning, at: datetime) -> "Entry":
        """Return the row after the call that was number ``attempts`` got its answer.

        Where another call has begun meanwhile, only an acceptance still counts: the other's row
        says more than any other answer.
        """
        ours = self.state is State.CALLING and self.attempts == attempts
        if not ours and (meaning.effect is not Effect.COUNTED or self.state is State.ACCEPTED):
            return self
        unknown = self.started_at if meaning.effect is Effect.UNKNOWN else None
        first_unknown_at = self.first_unknown_at or unknown
        state = _state_after(meaning, ever_unknown=first_unknown_at is not None)
        reason = meaning.reason if state is State.REFUSED else None
        return replace(
            self,
            state=state,
            key_n=self.key_n if meaning.same_key else self.key_n + 1,
            first_unknown_at=first_unknown_at,
            answered_at=at,
            answer=meaning.name,
            reason=reason.value if reason else None,
        )


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


def _state_after(meaning: Meaning, *, ever_unknown: bool) -> State:
    if meaning.effect is Effect.COUNTED:
        return State.ACCEPTED
    # No refusal says anything about an earlier call that nobody knows about, not even that there
    # is no such customer: that call may have been counted before the customer was deleted.
    return State.UNKNOWN if ever_unknown else State.REFUSED
