"""What was recorded, reported and counted in a span of days, and how the sums meet. Pure.

Three views of one usage, by UTC day. What is *recorded* is known by tool, and a report holds each
reading that was claimed, so it is known what became of it. *Reports* and what Stripe has *counted*
are known by meter alone. They meet in two sums, of each day and meter:

- reports = the claimed readings on that meter + what plans made of others (routes, markups);
- counted = reported + shadow + differences - not shown yet + counted without an answer
  + unexplained.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from usage_ingest.charging import is_route
from usage_ingest.reconciliation import Number, Standing, as_number, standing_of

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)

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
    """Reports that Stripe accepted after their period, that are on no invoice, or `unknown`."""


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


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period of a subscription at Stripe."""

    account: UUID
    subscription: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose statement it is, from ``start`` to ``end``, whole hours of UTC.

    Of a ``user`` it has the runs, whoever pays; without one, all that ``accounts`` pay for.
    ``accounts`` are all that may have claimed, ``users`` all whose runs may be among theirs,
    ``customers`` whose each customer at Stripe is. ``shared`` accounts pay for others than the
    user. ``finds_all``: no other account has ever paid for the users. Without ``totals_complete``
    runs that are in no report are not known. ``read_at``: when Stripe's sums of a customer and
    meter were read last. ``is_known``: the ledger has anything of the user or customer.
    """

    user: UUID | None
    start: datetime
    end: datetime
    accounts: tuple[UUID, ...]
    users: tuple[UUID, ...]
    customers: Mapping[str, UUID | None]
    shared: frozenset[UUID]
    finds_all: bool
    totals_complete: bool
    periods: tuple[Period, ...]
    read_at: Mapping[tuple[str, str], datetime]
    is_known: bool

    def days(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield each day's begin and end; the first and last may be parts of days."""
        start = self.start
        while start < self.end:
            midnight = start.replace(hour=0) + DAY
            yield start, min(midnight, self.end)
            start = midnight

    def customers_of(self, accounts: Collection[UUID | None]) -> Sequence[str]:
        """Return the customers of ``accounts``, and one that is no account's."""
        return [
            customer
            for customer, account in self.customers.items()
            if account is None or account in accounts or self.user is None
        ]


@dataclass(frozen=True, slots=True)
class RecordedReadings:
    """Readings of a tool with one key; ``key`` is ``None`` for the runs themselves, each once."""

    account: UUID
    server: str
    tool: str
    key: str | None
    state: str
    number: int
    value: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of a tool by the totals, those with readings and those that are not billed."""

    account: UUID
    server: str
    tool: str
    billable: int
    not_billable: int


@dataclass(frozen=True, slots=True)
class HourReports:
    """Reports of a customer, meter and hour in one state; ``placement`` is of accepted ones."""

    account: UUID
    customer: str
    meter: str
    hour: datetime
    state: str
    ever_unknown: bool
    placement: str | None
    number: int
    value: int


@dataclass(frozen=True, slots=True)
class HourSum:
    """Stripe's sum of an hour as it was read last, and by how much it was found to differ."""

    customer: str
    meter: str
    hour: datetime
    counted: float
    differs_by: Number


@dataclass(frozen=True, slots=True)
class DayRows:
    """All that is known of a day."""

    recorded: Sequence[RecordedReadings]
    runs: Sequence[Runs]
    reports: Sequence[HourReports]
    sums: Sequence[HourSum]


def unknown(scope: Scope) -> str:
    """Say that the ledger has nothing of a user or customer: nothing used would look the same."""
    if scope.user is None:
        return f"the ledger has no account with the customer {next(iter(scope.customers))}"
    account = f"; an account's is that of its customer, {', '.join(sorted(scope.customers))}"
    return f"the ledger has no user {scope.user}{account if scope.customers else ''}"


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


@dataclass(slots=True)
class Sums:
    """The sums of all days, by meter or key of readings, and what is unexplained since when."""

    values: dict[tuple[str, Part, str], Number] = field(default_factory=dict)
    unexplained: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Add a line."""
        place = (line.meter, line.part, line.state)
        self.values[place] = self.values.get(place, 0) + line.value
        if line.state == "unexplained":
            self.unexplained.append(line)

    def late(self, now: datetime, older_than: timedelta) -> bool:
        """Return whether anything of a day that ended longer ago is unexplained."""
        return any(now - (each.day + DAY) > older_than for each in self.unexplained)

    def states(self) -> Sequence[str]:
        """Return the states that occur, each once, in their order."""
        return list(dict.fromkeys(state for (_, _, state) in self.values))

    def sentences(self) -> Iterator[str]:
        """Yield, for each meter and key, what it was recorded, reported and counted."""
        for meter in sorted({place[0] for place in self.values if place[0]}):
            yield from self._meet(meter)

    def _meet(self, meter: str) -> Iterator[str]:
        recorded, claimed = self._of(meter, Part.RECORDED), self._of(meter, Part.CLAIMED)
        reported, counted = self._of(meter, Part.REPORTED), self._of(meter, Part.COUNTED)
        if recorded:
            yield f"{meter}: recorded {_total(recorded)} = {listed(recorded)}"
        superseded = reported.pop("superseded", 0)
        if reported:
            again = f"; {shown(superseded)} were reported again" if superseded else ""
            made_of = f"{listed(claimed)} = " if claimed else ""
            total = shown(sum(reported.values()))
            yield f"{meter}: in reports {total} = {made_of}{listed(reported)}{again}"
        if counted:
            total = shown(counted.pop("counted", 0))
            made_of = listed({"reported": reported.get("reported", 0)} | counted)
            yield f"{meter}: counted by Stripe {total} = {made_of}"
        invoice = self._of(meter, Part.INVOICE)
        unknown_yet = invoice.pop("unknown", 0)
        if invoice:
            yield f"{meter}: accepted after its period, or on no invoice: {listed(invoice)}"
        if unknown_yet:
            yield f"{meter}: on which invoice is not known yet: {shown(unknown_yet)}"

    def _of(self, meter: str, part: Part) -> dict[str, Number]:
        return {
            state: value
            for (of, its, state), value in self.values.items()
            if of == meter and its is part
        }


def _total(values: Mapping[str, Number]) -> str:
    return shown(sum(values.values()))


def listed(values: Mapping[str, Number]) -> str:
    """Return amounts by their names, as a sum: ``reported 8 - not_shown 3``."""
    terms = ""
    for state, value in values.items():
        sign = " - " if value < 0 else " + "
        terms += f"{sign}{state} {shown(abs(value))}"
    return terms.removeprefix(" + ").lstrip()


def shown(value: Number) -> str:
    """Return an amount in digits, without a fraction if it has none."""
    return str(as_number(value))
