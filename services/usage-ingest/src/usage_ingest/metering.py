"""What a tool run is billed as: what each meter reads for it, and whether it is reported. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nexus_contracts import Event, ToolExecuted

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
"""Stripe takes meter events up to five minutes ahead of its clock."""

OLDEST_REPORTABLE: Final = timedelta(days=35)
"""Stripe takes meter events up to 35 days old."""

ToolRun = Event[ToolExecuted]


class BillingState(StrEnum):
    """Where an event stands between its record and its report."""

    WAITING = "waiting"
    DUE = "due"
    CLAIMED = "claimed"
    NOT_BILLABLE = "not_billable"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class BillingRules:
    """Which runs are billed, and on which meters."""

    runs_meter: str
    tokens_meter: str | None
    billable_statuses: frozenset[str]

    @property
    def meters(self) -> tuple[str, ...]:
        """Return the meters that a run can have readings of."""
        return (self.runs_meter, *([self.tokens_meter] if self.tokens_meter else []))


def readings(run: ToolExecuted, rules: BillingRules) -> Mapping[str, int]:
    """Return what each meter reads for this run; meters that read zero are left out."""
    if run.status not in rules.billable_statuses:
        return {}
    read = {rules.runs_meter: 1}
    if rules.tokens_meter is not None and run.token_count:
        read[rules.tokens_meter] = run.token_count
    return read


def first_state(occurred_at: datetime, read: Mapping[str, int], now: datetime) -> BillingState:
    """Return the state in which an event is recorded if its customer is not known yet."""
    if not read:
        return BillingState.NOT_BILLABLE
    if now - occurred_at >= OLDEST_REPORTABLE:
        return BillingState.EXPIRED
    return BillingState.WAITING


def is_from_the_future(occurred_at: datetime, now: datetime) -> bool:
    """Whether an event is so far ahead of ``now`` that its publisher's clock must be wrong."""
    return occurred_at - now > FUTURE_TOLERANCE
