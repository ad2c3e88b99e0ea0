"""What was used of meters: amounts that Stripe has accepted or that wait. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from nexus_plans import Plans

NO_CUSTOMER: Final = "no_customer"
REFUSED: Final = "refused"

WHY: Final = {
    "pending": "not_sent",
    "forwarded": "not_answered",
    "rejected": REFUSED,
    "rejected_later": REFUSED,
}
"""Why an amount waits, by the state of its report. Without one, the account has no customer."""


class Amount(NamedTuple):
    """What reports of a meter come to in the span that begins at ``start``, in any state."""

    start: datetime
    meter: str
    value: int


class Unfinished(NamedTuple):
    """What of it Stripe has not accepted, and why."""

    start: datetime
    meter: str
    state: str
    reason: str | None
    value: int


class Shadow(NamedTuple):
    """What of it is never sent, since it was reported in another way."""

    start: datetime
    meter: str
    value: int


class Waiting(NamedTuple):
    """What runs of accounts without a customer would come to."""

    start: datetime
    meter: str
    value: int


@dataclass(slots=True)
class _Row:
    reported: int = 0
    shadow: int = 0
    why: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    reasons: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def answer(self) -> dict[str, Any]:
        unreported = self.why.get(NO_CUSTOMER, 0)
        waiting = sum(self.why.values())
        shown: dict[str, Any] = {
            "accepted": self.reported - (waiting - unreported) - self.shadow,
            "waiting": waiting,
            "why": self.why,
        }
        if self.reasons:
            shown["reasons"] = self.reasons
        if self.shadow:
            shown["shadow"] = self.shadow
        return shown


def meters(plans: Plans | None) -> dict[str, Any]:
    """Return how the meters of the file of plans are shown, by their event names."""
    return {name: each.model_dump() for name, each in plans.meters.items()} if plans else {}


def amounts(
    reported: Iterable[Amount],
    unfinished: Iterable[Unfinished],
    shadow: Iterable[Shadow],
    waiting: Iterable[Waiting],
) -> list[dict[str, Any]]:
    """Return amounts by span and meter, the earliest first."""
    rows: Mapping[tuple[datetime, str], _Row] = defaultdict(_Row)
    for amount in reported:
        rows[amount.start, amount.meter].reported += amount.value
    for report in unfinished:
        row = rows[report.start, report.meter]
        row.why[WHY[report.state]] += report.value
        if report.reason is not None:
            row.reasons[report.reason] += report.value
    for part in shadow:
        rows[part.start, part.meter].shadow += part.value
    for runs in waiting:
        rows[runs.start, runs.meter].why[NO_CUSTOMER] += runs.value
    return [
        {"start": start, "meter": meter, **row.answer()}
        for (start, meter), row in sorted(rows.items())
        if row.reported or row.why
    ]
