"""Whether Stripe's own sum of an hour is what the ledger expects. Pure.

A report belongs to the hour of its ``occurred_at``, as at Stripe. Stripe shows what it has counted
some time after it accepted it, and names no limit for that
(https://docs.stripe.com/api/billing/meter-event-summary): ``lag`` is how long is waited.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from nexus_contracts import UsageCounted

MAX_LAG: Final = timedelta(days=1)
"""Within it Stripe shows what it has accepted: the most that the setting of its lag may be."""

CALLED_FOR: Final = timedelta(days=1)
"""From forwarding a report until it is certainly not sent to Stripe any more: 23 h from its first
call, which follows at once. One that waited for long in stripe-reporter's queue may be later."""

Number = int | float
"""Stripe's sums are floats; a whole one is taken for a whole number."""

MAX_WHOLE: Final = 2.0**63
"""From here on a float stays one: no sum of reports is as large, and digits would be invented."""


def as_number(value: float) -> Number:
    """Return a sum as a whole number, if it is one."""
    return int(value) if float(value).is_integer() and abs(value) < MAX_WHOLE else value


class Standing(StrEnum):
    """What the ledger knows of a report at Stripe."""

    COUNTED = "counted"
    """Stripe has accepted it, and has not said otherwise."""
    OPEN = "open"
    """Stripe may have it: it has not answered, or an answer was lost."""
    SHADOW = "shadow"
    """The way before this one reported its usage, in whatever portions."""
    REJECTED = "rejected"
    """Stripe had accepted it, and has said later that it does not count it."""
    NEVER = "never"
    """Stripe does not count it: refused, or superseded."""


def standing_of(state: str, *, ever_unknown: bool) -> Standing:
    """Return what the ledger knows at Stripe of a report in ``state``."""
    if state == "reported":
        return Standing.COUNTED
    if state in {"pending", "forwarded"} or (state == "rejected" and ever_unknown):
        return Standing.OPEN
    others = {"shadow": Standing.SHADOW, "rejected_later": Standing.REJECTED}
    return others.get(state, Standing.NEVER)


@dataclass(frozen=True, slots=True)
class HourReport:
    """A report of one customer and meter in one hour.

    A shadow report has no answer: it is as if it had been accepted when it was made.
    """

    report_id: UUID
    value: int
    state: str
    answered_at: datetime | None = None
    ever_unknown: bool = False
    forwarded_at: datetime | None = None

    @property
    def standing(self) -> Standing:
        """What the ledger knows of it at Stripe."""
        return standing_of(self.state, ever_unknown=self.ever_unknown)

    def is_shown(self, as_of: datetime) -> bool:
        """Whether a sum that was read at ``as_of`` has it for certain, if Stripe has it at all."""
        if self.state == "rejected":
            last_call = self.answered_at
        else:
            last_call = None if self.forwarded_at is None else self.forwarded_at + CALLED_FOR
        return last_call is not None and last_call + MAX_LAG <= as_of


@dataclass(frozen=True, slots=True)
class ReportSum:
    """Reports of one standing, added up; the latest was answered at ``answered_at``."""

    value: int
    standing: Standing
    answered_at: datetime | None


class Portion(Protocol):
    """A report, or a sum of reports, as a comparison takes it."""

    @property
    def value(self) -> int:
        """What it adds to Stripe's sum, if Stripe counts it."""

    @property
    def standing(self) -> Standing:
        """What the ledger knows of it at Stripe."""

    @property
    def answered_at(self) -> datetime | None:
        """When it was answered last."""


class Kind(StrEnum):
    """How Stripe's sum compares with the ledger's."""

    EQUAL = "equal"
    LAGGING = "lagging"
    """Stripe may not show yet what it accepted lately."""
    LOWER = "lower"
    """It lacks what it had accepted."""
    HIGHER = "higher"
    """It has more than all that may have been sent."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How Stripe's sum ``counted`` of an hour compares with its reports.

    ``expected`` is the sum of what Stripe must show by now; up to ``at_most`` may be there.
    """

    kind: Kind
    counted: Number
    expected: int
    at_most: int


def compare(reports: Iterable[Portion], counted: float, as_of: datetime, lag: timedelta) -> Verdict:
    """Compare an hour's reports with what Stripe had counted when it was read at ``as_of``.

    What was accepted less than ``lag`` before may or may not be shown, and so may what Stripe has
    rejected since then. A report without an answer may or may not be there. Within these bounds no
    difference is claimed.
    """
    sure = lately = possible = 0
    for report in reports:
        is_late = report.answered_at is not None and report.answered_at > as_of - lag
        if report.standing is Standing.OPEN:
            possible += report.value
        elif report.standing is Standing.REJECTED:
            possible += report.value if is_late else 0
        elif report.standing is not Standing.NEVER:
            if is_late:
                lately += report.value
            else:
                sure += report.value
    at_most = sure + lately + possible
    if counted < float(sure):
        kind = Kind.LOWER
    elif counted > float(at_most):
        kind = Kind.HIGHER
    else:
        kind = Kind.LAGGING if counted < float(sure + lately) else Kind.EQUAL
    return Verdict(kind, as_number(counted), sure, at_most)


class DifferenceKind(StrEnum):
    """What a difference is, as it is stored and shown."""

    LOWER = "lower"
    HIGHER = "higher"
    GONE = "gone"
    """Stripe has deleted the customer: nothing can be read, and nothing is invoiced."""
    FOREIGN = "foreign"
    """The ledger has no account with this customer: somebody else's usage, or a lost ledger's."""


@dataclass(frozen=True, slots=True)
class ComparedHour:
    """Stripe's sum of an hour, and whether it may not show yet what it accepted."""

    hour: datetime
    value: float
    lagging: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """An hour in which Stripe's sum is not what the ledger expects, as in ``Verdict``."""

    hour: datetime
    kind: DifferenceKind
    expected: int
    at_most: int
    counted: float

    @property
    def by(self) -> Number:
        """How much Stripe has too much, or, below 0, too little."""
        counted = as_number(self.counted)
        least = self.expected if counted < self.expected else self.at_most
        return counted - least


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a reading says of its hours.

    ``hours`` are those in which Stripe has counted anything, or the ledger has reports. ``lags``
    are the seconds from the last answer to the reading that showed all that was accepted, of hours
    that had been seen without.
    """

    hours: tuple[ComparedHour, ...]
    differences: tuple[Difference, ...]
    lags: tuple[float, ...]


def compare_reading(
    reading: UsageCounted,
    reports: Mapping[datetime, Sequence[Portion]],
    *,
    lagged: Collection[datetime],
    read_since: Collection[datetime] = (),
    ours: bool,
    lag: timedelta,
) -> Comparison:
    """Compare each hour of a reading with its reports.

    Args:
        reading: What Stripe had counted; an hour that it does not list has nothing.
        reports: By hour, all reports of its customer and meter.
        lagged: The hours that an earlier reading saw without all that was accepted.
        read_since: The hours that a reading which began later has: this one says nothing of them.
        ours: Whether the ledger has an account with this customer.
        lag: How long Stripe may take to show what it accepted.
    """
    counted = {each.start: each.value for each in reading.hours}
    hours, differences, lags = [], [], []
    for hour in sorted((reports.keys() | counted.keys()).difference(read_since)):
        its, value = reports.get(hour, ()), counted.get(hour, 0.0)
        verdict = compare(its, value, reading.as_of, lag)
        lagging = verdict.kind is Kind.LAGGING
        if value or its:
            hours.append(ComparedHour(hour, value, lagging))
        if hour in lagged and verdict.kind is Kind.EQUAL and not _any_shadow(its):
            lags.append(_since_the_last_answer(its, reading.as_of))
        if kind := _kind_of(verdict, gone=reading.customer_gone, ours=ours):
            differences.append(Difference(hour, kind, verdict.expected, verdict.at_most, value))
    return Comparison(tuple(hours), tuple(differences), tuple(lags))


def opened(
    differences: Iterable[Difference],
    *,
    known: Mapping[datetime, Difference],
    settled: Collection[datetime],
) -> tuple[Difference, ...]:
    """Return the differences that nobody knows yet.

    A settled one is another once its kind or amount changes. It is the same if only a report in its
    hour was answered since.

    Args:
        differences: What a reading has found.
        known: The differences that were open before, by hour.
        settled: The hours of those that a person has settled.
    """
    return tuple(
        each
        for each in differences
        if each.hour not in known
        or (each.hour in settled and _amount(known[each.hour]) != _amount(each))
    )


def _amount(difference: Difference) -> tuple[DifferenceKind, Number]:
    return difference.kind, difference.by


def _kind_of(verdict: Verdict, *, gone: bool, ours: bool) -> DifferenceKind | None:
    if gone:
        return DifferenceKind.GONE if verdict.kind is Kind.LOWER else None
    if not ours:
        return DifferenceKind.FOREIGN if verdict.counted else None
    return {Kind.LOWER: DifferenceKind.LOWER, Kind.HIGHER: DifferenceKind.HIGHER}.get(verdict.kind)


def _any_shadow(reports: Iterable[Portion]) -> bool:
    return any(each.standing is Standing.SHADOW for each in reports)


def _since_the_last_answer(reports: Sequence[Portion], as_of: datetime) -> float:
    answered = [each.answered_at for each in reports if each.answered_at is not None]
    return max(0.0, (as_of - max(answered, default=as_of)).total_seconds())


@dataclass(frozen=True, slots=True)
class NamedReport:
    """A report with the identifier that Stripe knows it by, and why it was refused."""

    identifier: str
    reason: str | None
    report: HourReport


@dataclass(frozen=True, slots=True)
class HourAtStripe:
    """Stripe's sum of an hour as it was read; ``difference`` if it is not what is expected.

    ``settlement`` is what a person noted who settled the difference.
    """

    as_of: datetime
    counted: float
    lagging: bool
    difference: Difference | None
    settlement: str | None
    reports: tuple[NamedReport, ...]
