"""Which invoice a report is on, if any."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from nexus_contracts import SubscriptionChanged, SubscriptionItem
from usage_ingest.periods import Period, Placement, periods_of, place

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
    assert place(answered_at, APRIL, HOUR, known=True) is placement


def test_usage_without_a_period_is_on_no_invoice() -> None:
    """However early it came; before the subscriptions were read nobody can say so."""
    assert place(MARCH, None, HOUR, known=True) is Placement.NOT_SUBSCRIBED
    assert place(MARCH, None, HOUR, known=False) is Placement.UNKNOWN


def changed(**fields: Any) -> SubscriptionChanged:
    """Return a subscription of March with one metered price and seats."""
    items = [
        SubscriptionItem(price_id="price_1", product_id="prod_1", meter="runs"),
        SubscriptionItem(price_id="price_2", product_id="prod_1", quantity=3),
    ]
    described = {
        "subscription_id": "sub_1",
        "account_id": UUID(int=1),
        "stripe_customer_id": "cus_1",
        "revision": 1,
        "status": "active",
        "items": items,
        "period_start": MARCH,
        "period_end": APRIL,
        "plan_since": MARCH,
        "as_of": MARCH,
    }
    return SubscriptionChanged(**{**described, **fields})


def test_a_subscription_makes_its_period_known() -> None:
    """With the meters of its prices; seats are no meter."""
    assert list(periods_of(changed(), first=True)) == [Period(MARCH, APRIL, ("runs",))]


def test_a_subscription_that_ends_shortens_its_period() -> None:
    """What comes later is on no invoice."""
    ends = MARCH + timedelta(days=9)

    assert list(periods_of(changed(ended_at=ends, status="canceled"), first=False)) == [
        Period(MARCH, ends, ("runs",))
    ]


def test_an_older_subscription_had_periods_before() -> None:
    """They have ended by the time it is heard of; one that never ran had none."""
    since = MARCH - timedelta(days=90)

    assert list(periods_of(changed(plan_since=since), first=True)) == [
        Period(since, MARCH, ("runs",)),
        Period(MARCH, APRIL, ("runs",)),
    ]
    assert list(periods_of(changed(plan_since=since), first=False)) == [
        Period(MARCH, APRIL, ("runs",))
    ]
    assert list(periods_of(changed(status="incomplete_expired"), first=True)) == []
