"""What `explain` says of Stripe's own sum of a report's hour."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from usage_ingest.explanation import sum_of_hour
from usage_ingest.reconciliation import (
    Difference,
    DifferenceKind,
    HourAtStripe,
    HourReport,
    NamedReport,
)

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPORTED: Final = HourReport(UUID(int=1), 5, "reported", NOON)
UNKNOWN: Final = HourReport(UUID(int=2), 3, "forwarded", forwarded_at=NOON)
LOWER: Final = Difference(NOON, DifferenceKind.LOWER, 5, 8, 3.0)


def hour(
    counted: float,
    difference: Difference | None = None,
    *,
    lagging: bool = False,
    settlement: str | None = None,
    after: int = 48,
) -> HourAtStripe:
    """Return an hour with two reports as Stripe shows it."""
    reports = tuple(NamedReport("nexus:r", None, each) for each in (REPORTED, UNKNOWN))
    as_of = NOON + timedelta(hours=after)
    return HourAtStripe(as_of, counted, lagging, difference, settlement, reports)


@pytest.mark.parametrize(
    ("report", "found", "said"),
    [
        (REPORTED, None, "Stripe's sum of its hour was not read yet"),
        (REPORTED, hour(5.0), "is 5, as read 2026-03-03T12:00:00Z, as expected"),
        (REPORTED, hour(0.0, lagging=True), "does not show yet all that it accepted"),
        (REPORTED, hour(3.0, LOWER), "2 too little (lower; see usage-ingest reconcile)"),
        (REPORTED, hour(3.0, LOWER, settlement="CN-12"), "2 too little (lower), settled: CN-12"),
        (UNKNOWN, hour(8.0), "it seems that Stripe had it (an inference), as expected"),
        (UNKNOWN, hour(5.0), "it seems that Stripe did not show it (an inference), as expected"),
        (UNKNOWN, hour(5.0, after=47), "as read 2026-03-03T11:00:00Z, as expected"),
    ],
)
def test_the_sum_of_an_hour_is_said_with_what_follows_from_it(
    report: HourReport, found: HourAtStripe | None, said: str
) -> None:
    """A number, when it was read, and whether it is what the ledger expects."""
    assert sum_of_hour(report.report_id, found).endswith(said)
