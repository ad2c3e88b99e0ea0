"""Which invoice a report is on, if any."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from usage_ingest.periods import Placement, grace_note, place

MARCH: Final = datetime(2026, 3, 1, tzinfo=UTC)
APRIL: Final = datetime(2026, 4, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
SECOND: Final = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("answered_at", "placement"),
    [
        (APRIL - SECOND, Placement.IN_PERIOD),
        (APRIL, Placement.IN_GRACE),
        (APRIL + SECOND, Placement.IN_GRACE),
        (APRIL + timedelta(minutes=59), Placement.IN_GRACE),
        (APRIL + HOUR, Placement.AFTER_FINALISATION),
        (APRIL + 2 * HOUR, Placement.AFTER_FINALISATION),
    ],
)
def test_usage_of_a_period_is_on_its_invoice_until_that_is_final(
    answered_at: datetime, placement: Placement
) -> None:
    """An hour after the period's end by default."""
    assert place(answered_at, APRIL, HOUR, known=True, charged=True, early=False) is placement


def test_usage_without_a_period_is_on_no_invoice() -> None:
    """However early it came; before the subscriptions were read nobody can say so."""
    assert place(MARCH, None, HOUR, known=True, charged=True, early=False) is Placement.NOT_SUBSCRIBED
    assert place(MARCH, None, HOUR, known=False, charged=False, early=False) is Placement.UNKNOWN


def test_a_grace_that_is_too_short_is_noted_with_what_to_set() -> None:
    """By the longest that a report may take which is not refused; Stripe has whole hours."""
    slow = {"window": 10 * SECOND, "retries": timedelta(seconds=4265), "lag": HOUR}

    note = grace_note(HOUR, **slow)

    assert note is not None
    assert "3600 s after their period" in note
    assert "7875 s (window 10, retry tiers 4265, Stripe's lag 3600)" in note
    assert "to 3 h, and INVOICE_GRACE_SECONDS likewise" in note
    assert grace_note(timedelta(seconds=7875), **slow) is None
    assert grace_note(timedelta(seconds=7874), **slow) is not None
