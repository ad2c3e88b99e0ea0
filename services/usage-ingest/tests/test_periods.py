"""Which invoice a report is on, if any."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import pytest

from nexus_contracts import SubscriptionChanged
from usage_ingest.periods import Placement, ended_early, grace_note, place

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


@pytest.mark.parametrize(
    ("answered_at", "placement"),
    [
        (APRIL - SECOND, Placement.ENDED_EARLY),
        (APRIL + timedelta(minutes=59), Placement.ENDED_EARLY),
        (APRIL + HOUR, Placement.AFTER_FINALISATION),
    ],
)
def test_usage_of_a_period_that_ended_early_is_in_doubt(
    answered_at: datetime, placement: Placement
) -> None:
    """Unless it came when no invoice could have had it."""
    assert place(answered_at, APRIL, HOUR, known=True, charged=True, early=True) is placement


@pytest.mark.parametrize(
    ("ended_at", "cancel_at", "early"),
    [
        (None, None, False),
        (APRIL, None, False),
        (APRIL, APRIL, False),
        (APRIL - HOUR, None, True),
        (APRIL - HOUR, APRIL - HOUR, False),
        (APRIL - HOUR, APRIL, True),
    ],
)
def test_a_subscription_that_is_canceled_at_once_ends_early(
    ended_at: datetime | None, cancel_at: datetime | None, *, early: bool
) -> None:
    """Not one that ends with its period, or when it was to."""
    change = SubscriptionChanged(
        subscription_id="sub_1",
        account_id=UUID(int=1),
        stripe_customer_id="cus_1",
        revision=1,
        status="active" if ended_at is None else "canceled",
        items=[],
        period_start=MARCH,
        period_end=APRIL,
        cancel_at=cancel_at,
        ended_at=ended_at,
        plan_since=MARCH,
        as_of=APRIL,
    )

    assert ended_early(change) is early


def test_usage_without_a_period_is_on_no_invoice() -> None:
    """However early it came; before the subscriptions were read nobody can say so."""
    nowhere = partial(place, MARCH, None, HOUR, early=False)
    assert nowhere(known=True, charged=True) is Placement.NOT_SUBSCRIBED
    assert nowhere(known=False, charged=False) is Placement.UNKNOWN


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
