"""The lines of a day: what was recorded, reported and counted, and what makes each up. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from usage_ingest.charging import is_route
from usage_ingest.reconciliation import Number, Standing, as_number, standing_of
from usage_ingest.statement.rows import DayRows, HourReports, RecordedReadings, Scope

UNCLAIMED: Final = ("waiting", "due", "expired", "not_billable", "no_meter")
"""States of what is in no report; all others are those of a report."""


class Part(StrEnum):
    """What a line is about."""

    RECORDED = "recorded"
    """Runs, by server, tool and reading key, and what became of them: the state of their report."""
    CLAIMED = "claimed"
    """What the reports consist of: `readings` and `by_plan`, or what is `unexplained`."""
    REPORTED = "reported"
    """Reports, by their state."""
    COUNTED = "counted"
    """Stripe's sum, `counted`, and what makes it up beside what was reported."""
    INVOICE = "invoice"
    """Reports that Stripe accepted, by placement, but for those that came in their period."""


@dataclass(frozen=True, slots=True)
class Line:
    """A sum of a day. ``meter`` is a meter, or of what is recorded the key of a reading.

    ``number`` counts runs or reports. ``account`` pays.
    """

    part: Part
    day: datetime
    meter: str
    state: str
    value: Number
    number: int = 0
    account: UUID | None = None
    customer: str | None = None
    server: str | None = None
    tool: str | None = None


def lines(scope: Scope, day: datetime, rows: DayRows) -> Iterator[Line]:
    """Yield the lines of a day: of a user's shared accounts also what others have used."""
    yield from _recorded(day, rows.recorded)
    if scope.totals_complete:
        yield from _unreported(scope, day, rows)
    yield from _claimed(scope, day, rows)
    yield from _reported(day, rows.reports)
    yield from _counted(day, rows)


def _recorded(day: datetime, recorded: Iterable[RecordedReadings]) -> Iterator[Line]:
    for each in recorded:
        if each.key is not None:
            yield Line(
                Part.RECORDED,
                day,
                each.key,
                each.state,
                each.value,
                each.number,
                each.account,
                server=each.server,
                tool=each.tool,
            )


def _unreported(scope: Scope, day: datetime, rows: DayRows) -> Iterator[Line]:
    """Yield the runs that have no readings, and those whose readings their plan charges nowhere."""
    left: Counter[tuple[str, str]] = Counter()
    for each in rows.runs:
        left[each.server, each.tool] += each.billable
        if each.not_billable:
            yield Line(
                Part.RECORDED,
                day,
                "",
                "not_billable",
                0,
                each.not_billable,
                each.account,
                server=each.server,
                tool=each.tool,
            )
    if not scope.finds_all:
        return
    for found in rows.recorded:
        if found.key is None:
            left[found.server, found.tool] -= found.number
    for (server, tool), number in left.items():
        if number > 0:
            yield Line(Part.RECORDED, day, "", "no_meter", 0, number, server=server, tool=tool)


def _claimed(scope: Scope, day: datetime, rows: DayRows) -> Iterator[Line]:
    """Yield what reports consist of; of accounts that also pay for others that is not known."""
    readings: Counter[tuple[UUID, str]] = Counter()
    routed: set[UUID] = set()
    for found in rows.recorded:
        if found.key is not None and found.state not in UNCLAIMED:
            readings[found.account, found.key] += found.value
            if is_route(found.key):
                routed.add(found.account)
    reported: Counter[tuple[UUID, str]] = Counter()
    for report in rows.reports:
        if report.state != "superseded":
            reported[report.account, report.meter] += report.value
    for account, meter in sorted(readings.keys() | reported.keys()):
        if account in scope.shared or is_route(meter):
            continue
        own, rest = readings[account, meter], reported[account, meter] - readings[account, meter]
        yield Line(Part.CLAIMED, day, meter, "readings", own, account=account)
        if rest:
            by_plan = rest > 0 and account in routed
            state = "by_plan" if by_plan else "unexplained"
            yield Line(Part.CLAIMED, day, meter, state, rest, account=account)


def _reported(day: datetime, reports: Iterable[HourReports]) -> Iterator[Line]:
    values: Counter[tuple[Part, UUID, str, str, str]] = Counter()
    numbers: Counter[tuple[Part, UUID, str, str, str]] = Counter()
    for each in reports:
        of = (each.account, each.customer, each.meter)
        values[Part.REPORTED, *of, each.state] += each.value
        numbers[Part.REPORTED, *of, each.state] += each.number
        if each.placement is not None:
            values[Part.INVOICE, *of, each.placement] += each.value
            numbers[Part.INVOICE, *of, each.placement] += each.number
    for place in sorted(values):
        part, account, customer, meter, state = place
        yield Line(part, day, meter, state, values[place], numbers[place], account, customer)


@dataclass(slots=True)
class _Hour:
    """An hour's reports by what is known of them at Stripe, and Stripe's sum."""

    accepted: int = 0
    shadow: int = 0
    unanswered: int = 0
    counted: Number = 0
    differs_by: Number = 0

    def parts(self) -> Iterator[tuple[str, Number]]:
        """Yield what makes Stripe's sum up, beside what was reported."""
        yield "counted", self.counted
        yield "shadow", self.shadow
        yield "differences", self.differs_by
        rest = self.counted - self.accepted - self.shadow - self.differs_by
        answerless = min(max(rest, 0), self.unanswered)
        yield "not_shown", min(rest, 0)
        yield "unanswered", answerless
        yield "unexplained", max(rest, 0) - answerless


def _counted(day: datetime, rows: DayRows) -> Iterator[Line]:
    hours: dict[tuple[str, str, datetime], _Hour] = {}
    for report in rows.reports:
        hour = hours.setdefault((report.customer, report.meter, report.hour), _Hour())
        standing = standing_of(report.state, ever_unknown=report.ever_unknown)
        hour.accepted += report.value if standing is Standing.COUNTED else 0
        hour.shadow += report.value if standing is Standing.SHADOW else 0
        hour.unanswered += report.value if standing is Standing.OPEN else 0
    for each in rows.sums:
        hour = hours.setdefault((each.customer, each.meter, each.hour), _Hour())
        hour.counted = as_number(each.counted)
        hour.differs_by = each.differs_by
    values: dict[tuple[str, str, str], Number] = {}
    for (customer, meter, _), hour in sorted(hours.items(), key=lambda each: each[0]):
        for state, value in hour.parts():
            place = (customer, meter, state)
            values[place] = values.get(place, 0) + value
    for (customer, meter, state), value in values.items():
        if value or state == "counted":
            yield Line(Part.COUNTED, day, meter, state, value, customer=customer)
