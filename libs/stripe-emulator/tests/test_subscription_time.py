"""What time brings to a subscription; the tests move the clock instead of waiting."""

from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient, RunningEmulator

DAY = 86400
MAY_31 = 1_780_228_800  # 2026-05-31T12:00:00Z


@pytest.fixture
async def price(sdk: Any, inspection: EmulatorClient) -> Any:
    """A monthly price; the clock is set to the end of May."""
    await inspection.set_clock(MAY_31)
    product = await sdk.v1.products.create_async({"name": "Pro"})
    described = {"product": product.id, "currency": "usd", "unit_amount": 1900}
    return await sdk.v1.prices.create_async(described | {"recurring": {"interval": "month"}})


def events_of(emulator: RunningEmulator) -> list[tuple[str, str, int]]:
    """Return type, status and period's start of every event of a subscription, in order."""
    listed = emulator.account.event_log.listed({"limit": 100})["data"]
    return [
        (event["type"], subject["status"], subject["items"]["data"][0]["current_period_start"])
        for event in reversed(listed)
        if (subject := event["data"]["object"])["object"] == "subscription"
    ]


async def test_periods_advance_with_the_clock(
    sdk: Any, inspection: EmulatorClient, emulator: RunningEmulator, customer_id: str, price: Any
) -> None:
    """Each has its event, also if several ended at once; the day of the month stays."""
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": price.id, "quantity": 2}]}
    )
    first = made["items"].data[0]

    await inspection.advance_clock(70 * DAY)
    found = await sdk.v1.subscriptions.retrieve_async(made.id)

    july_31 = MAY_31 + 61 * DAY
    period = found["items"].data[0]
    assert first.current_period_end == MAY_31 + 30 * DAY
    assert (period.current_period_start, period.current_period_end) == (july_31, july_31 + 31 * DAY)
    assert [kind for kind, _, _ in events_of(emulator)] == [
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.updated",
    ]


async def test_a_trial_ends_and_the_first_paid_period_begins(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: Any
) -> None:
    """Its days are counted from the trial's end."""
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": price.id}], "trial_period_days": 14}
    )

    await inspection.advance_clock(14 * DAY)
    found = await sdk.v1.subscriptions.retrieve_async(made.id)

    assert (made.status, found.status) == ("trialing", "active")
    assert found["items"].data[0].current_period_start == found.trial_end == made.trial_end


@pytest.mark.parametrize("wanted", [{"cancel_at_period_end": True}, {"cancel_at": MAY_31 + DAY}])
async def test_a_subscription_ends_when_it_is_to(
    sdk: Any,
    inspection: EmulatorClient,
    emulator: RunningEmulator,
    customer_id: str,
    price: Any,
    wanted: dict[str, Any],
) -> None:
    """Its end is the period's or the given time, whenever somebody looks."""
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": price.id}]}
    )
    ending = await sdk.v1.subscriptions.update_async(made.id, wanted)

    await inspection.advance_clock(40 * DAY)
    found = await sdk.v1.subscriptions.retrieve_async(made.id)

    assert (found.status, found.ended_at) == ("canceled", ending.cancel_at)
    assert events_of(emulator)[-1][:2] == ("customer.subscription.deleted", "canceled")


async def test_the_deletion_of_a_customer_ends_its_subscriptions(
    sdk: Any, emulator: RunningEmulator, customer_id: str, price: Any
) -> None:
    """They can still be retrieved."""
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": price.id}]}
    )

    await sdk.v1.customers.delete_async(customer_id)

    found = await sdk.v1.subscriptions.retrieve_async(made.id)
    types = [one["type"] for one in emulator.account.event_log.listed({"limit": 2})["data"]]
    assert found.status == "canceled"
    assert types == ["customer.deleted", "customer.subscription.deleted"]


async def test_a_subscription_shows_ten_of_its_items(
    sdk: Any, customer_id: str, price: Any
) -> None:
    """The rest is in the list of items."""
    product, recurring = price.product, {"interval": "month"}
    prices = [
        await sdk.v1.prices.create_async(
            {"product": product, "currency": "usd", "unit_amount": n, "recurring": recurring}
        )
        for n in range(12)
    ]
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": one.id} for one in prices]}
    )

    listed = sdk.v1.subscription_items.list_async({"subscription": made.id, "limit": 100})

    assert (len(made["items"].data), made["items"].has_more) == (10, True)
    assert len((await listed).data) == 12


async def test_the_status_that_payments_bring_can_be_set(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: Any
) -> None:
    """Since the emulator has no payments."""
    made = await sdk.v1.subscriptions.create_async(
        {"customer": customer_id, "items": [{"price": price.id}]}
    )

    await inspection.set_subscription_status(made.id, "past_due")

    assert (await sdk.v1.subscriptions.retrieve_async(made.id)).status == "past_due"


async def test_a_metered_item_has_no_quantity(sdk: Any, customer_id: str, price: Any) -> None:
    """Its quantity is what the meter counts."""
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter}
    metered = await sdk.v1.prices.create_async(
        {"product": price.product, "currency": "usd", "unit_amount": 1, "recurring": recurring}
    )
    items = [{"price": metered.id, "quantity": 1}]

    with pytest.raises(stripe.InvalidRequestError, match="no quantity"):
        await sdk.v1.subscriptions.create_async({"customer": customer_id, "items": items})
