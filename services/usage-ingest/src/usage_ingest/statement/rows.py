"""Whose statement it is, and what is read of a day: values."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from usage_ingest.reconciliation import Number

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)

Events = Mapping[str, Sequence[UUID]]
"""Some events of each report, by its identifier."""


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
