"""Whether a report may be sent to Stripe now: decided from its journal row and the time alone.

Stripe keeps identifiers unique for a rolling period of "at least 24 hours" and no longer
(https://docs.stripe.com/api/billing/meter-event/create). A call whose outcome is unknown may have
been counted; repeating it is harmless within that period and may charge twice after it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stripe_reporter.entries import Entry, State, calling
from stripe_reporter.reports import Report

FENCE: Final = timedelta(hours=23)
"""From the first call of unknown outcome on; the hour to 24 is for clocks and calls under way."""

OLDEST: Final = timedelta(days=35) - timedelta(minutes=10)
"""Stripe refuses events more than 35 days old; the minutes are for clocks and calls under way."""

CALL_STARTS_WITHIN: Final = timedelta(seconds=5)
"""Between the claim and the call. A process that was frozen in between must not wake up and call:
by then another may have taken the report over."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call Stripe, once ``entry`` is committed to the journal."""

    report: Report
    entry: Entry


@dataclass(frozen=True, slots=True)
class Counted:
    """Stripe has counted it; only the outcome is to be told again."""

    at: datetime
    ever_unknown: bool


@dataclass(frozen=True, slots=True)
class BeingCalled:
    """Another copy's call is under way."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A call's outcome has been unknown for too long to repeat it."""

    unknown_since: datetime


@dataclass(frozen=True, slots=True)
class NotCounted:
    """A person found that Stripe has not counted it; only the refusal is to be published."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class TooOld:
    """Stripe takes no event of that age, and it was certainly not counted before."""

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Taken:
    """The identifier belongs to a report with other contents."""


Held = Counted | NotCounted | BeingCalled | Fenced | TooOld | Taken
"""Why there is no call now."""

Decision = Call | Held


def decide(report: Report, entry: Entry | None, now: datetime) -> Decision:
    """Decide whether ``report``, whose journal row is ``entry``, may be sent at ``now``."""
    young = now - report.facts.occurred_at < OLDEST
    if entry is None:
        return Call(report, calling(report, None, now)) if young else TooOld(None)
    if entry.facts != report.facts:
        return Taken()
    if settled := _settled(entry):
        return settled
    if entry.state is State.CALLING and not entry.lost_caller(now):
        return BeingCalled()
    since = entry.unknown_since(now)
    if since is not None and (now - since >= FENCE or not young):
        return Fenced(since)
    return Call(report, calling(report, entry, now)) if young else TooOld(entry)


def _settled(entry: Entry) -> Counted | NotCounted | None:
    if entry.state is State.ACCEPTED and entry.answered_at is not None:
        return Counted(entry.answered_at, entry.ever_unknown)
    return NotCounted(entry) if entry.settled_as_refused else None


def may_start(call: Call, now: datetime) -> bool:
    """Whether the claim of ``call`` is fresh enough to act upon: asked right before the call."""
    return now - call.entry.started_at <= CALL_STARTS_WITHIN
