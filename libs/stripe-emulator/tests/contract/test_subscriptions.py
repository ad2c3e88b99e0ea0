"""Subscriptions and their items, as the emulator and Stripe both have them."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
DAY = 86400


@pytest.fixture
async def prices(client: Any, meter: Any) -> AsyncIterator[Any]:
    """A licensed price, a metered one and a dearer licensed one, of a product each."""
    made = []
    for usage in (
        {"unit_amount": 1900},
        {"unit_amount": 1, "usage_type": "metered", "meter": meter.id},
        {"unit_amount": 4900},
    ):
        product = await client.v1.products.create_async({"name": "Pro"})
        amount = usage.pop("unit_amount")
        recurring = {"interval": "month", **usage}
        described = {"product": product.id, "currency": "usd", "unit_amount": amount}
        made.append(await client.v1.prices.create_async(described | {"recurring": recurring}))
    yield made
    for price in made:
        await client.v1.products.update_async(price.product, {"active": False})


@pytest.fixture
async def subscription(client: Any, customer: Any, prices: Any) -> Any:
    """A subscription with three seats and metered runs, which needs no payment until later."""
    items = [{"price": prices[0].id, "quantity": 3}, {"price": prices[1].id}]
    described = {"customer": customer.id, "items": items, "trial_period_days": 7}
    return await client.v1.subscriptions.create_async(described)


async def test_a_subscription_has_items_with_quantities_and_periods(
    client: Any, subscription: Any, prices: Any, conforms: Conforms
) -> None:
    """A metered item has no quantity, and periods are the items' own."""
    found = await client.v1.subscriptions.retrieve_async(subscription.id)

    conforms("POST /v1/subscriptions", subscription.last_response.data)
    conforms("GET /v1/subscriptions/{subscription_exposed_id}", found.last_response.data)
    seats, runs = found["items"].data
    assert (seats.quantity, seats.price.id) == (3, prices[0].id)
    assert ("quantity" in runs, runs.price.recurring.meter) == (False, prices[1].recurring.meter)
    assert found.status == "trialing"
    assert seats.current_period_end == runs.current_period_end == found.trial_end
    assert found.trial_end == found.trial_start + 7 * DAY


async def test_an_upgrade_replaces_the_price_of_an_item(
    client: Any, subscription: Any, prices: Any, conforms: Conforms
) -> None:
    """The item keeps its id."""
    seats = subscription["items"].data[0]

    updated = await client.v1.subscriptions.update_async(
        subscription.id,
        {"items": [{"id": seats.id, "price": prices[2].id}], "metadata": {"plan": "pro"}},
    )

    conforms("POST /v1/subscriptions/{subscription_exposed_id}", updated.last_response.data)
    changed = updated["items"].data[0]
    assert (changed.id, changed.price.id, changed.quantity) == (seats.id, prices[2].id, 3)
    assert updated.metadata["plan"] == "pro"


async def test_items_are_added_changed_and_removed(
    client: Any, subscription: Any, prices: Any, conforms: Conforms
) -> None:
    """One by one, by their own addresses."""
    items = client.v1.subscription_items

    added = await items.create_async({"subscription": subscription.id, "price": prices[2].id})
    changed = await items.update_async(added.id, {"quantity": 9})
    listed = await items.list_async({"subscription": subscription.id})
    removed = await items.delete_async(added.id)
    left = await items.list_async({"subscription": subscription.id})

    conforms("POST /v1/subscription_items", added.last_response.data)
    conforms("POST /v1/subscription_items/{item}", changed.last_response.data)
    conforms("GET /v1/subscription_items", listed.last_response.data)
    conforms("DELETE /v1/subscription_items/{item}", removed.last_response.data)
    assert (added.quantity, changed.quantity) == (1, 9)
    assert (len(listed.data), len(left.data)) == (3, 2)


async def test_a_subscription_is_to_end_with_its_period(
    client: Any, subscription: Any, conforms: Conforms
) -> None:
    """Until then that can be taken back."""
    subscriptions = client.v1.subscriptions

    ending = await subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    going_on = await subscriptions.update_async(subscription.id, {"cancel_at_period_end": False})

    conforms("POST /v1/subscriptions/{subscription_exposed_id}", ending.last_response.data)
    assert ending.cancel_at == ending["items"].data[0].current_period_end
    assert (ending.status, ending.cancel_at_period_end) == ("trialing", True)
    assert (going_on.cancel_at, going_on.canceled_at) == (None, None)


async def test_a_canceled_subscription_can_be_retrieved_and_is_listed_on_demand(
    client: Any, subscription: Any, customer: Any, conforms: Conforms
) -> None:
    """It can't be canceled twice, nor get another price."""
    subscriptions = client.v1.subscriptions

    canceled = await subscriptions.cancel_async(subscription.id)
    found = await subscriptions.retrieve_async(subscription.id)
    listed = await subscriptions.list_async({"customer": customer.id})
    ended = await subscriptions.list_async({"customer": customer.id, "status": "all"})
    with pytest.raises(stripe.InvalidRequestError):
        await subscriptions.cancel_async(subscription.id)
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription"):
        await subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})

    conforms("DELETE /v1/subscriptions/{subscription_exposed_id}", canceled.last_response.data)
    conforms("GET /v1/subscriptions", ended.last_response.data)
    assert (found.status, found.ended_at is not None) == ("canceled", True)
    assert (len(listed.data), len(ended.data)) == (0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"customer": "cus_missing"},
        {"items": [{"price": "price_missing"}]},
        {"cancel_at": int(time.time()) - DAY},
        {"trial_end": int(time.time()) + DAY, "trial_period_days": 3},
    ],
)
async def test_a_contradictory_subscription_is_refused(
    client: Any, customer: Any, prices: Any, conforms: Conforms, changes: dict[str, Any]
) -> None:
    """Nothing is made."""
    described = {"customer": customer.id, "items": [{"price": prices[0].id}], **changes}

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.subscriptions.create_async(described)

    conforms("error", refusal.value.json_body)
    assert (await client.v1.subscriptions.list_async({"customer": customer.id})).data == []


async def test_products_are_shown_within_items_when_asked_for(
    client: Any, subscription: Any, conforms: Conforms
) -> None:
    """Not within a list of subscriptions, where they are too deep."""
    path = {"expand": ["items.data.price.product"]}

    found = await client.v1.subscriptions.retrieve_async(subscription.id, path)
    with pytest.raises(stripe.InvalidRequestError, match="more than 4 levels"):
        await client.v1.subscriptions.list_async({"expand": ["data.items.data.price.product"]})

    conforms("GET /v1/subscriptions/{subscription_exposed_id}", found.last_response.data)
    assert found["items"].data[0].price.product.name == "Pro"


async def test_a_subscription_entitles_to_its_products_features(
    client: Any, customer: Any, prices: Any, conforms: Conforms, eventually: Any
) -> None:
    """As long as it lasts."""
    features, key = client.v1.entitlements.features, f"contract_{uuid4().hex}"
    feature = await features.create_async({"lookup_key": key, "name": "Export"})
    await client.v1.products.features.create_async(
        prices[0].product, {"entitlement_feature": feature.id}
    )
    described = {"customer": customer.id, "items": [{"price": prices[0].id}]}
    entitlements = client.v1.entitlements.active_entitlements

    made = await client.v1.subscriptions.create_async(described | {"trial_period_days": 3})

    async def entitled() -> bool:
        found = await entitlements.list_async({"customer": customer.id})
        conforms("GET /v1/entitlements/active_entitlements", found.last_response.data)
        return [one.lookup_key for one in found.data] == [key]

    async def not_entitled() -> bool:
        return not await entitled()

    await eventually(entitled)
    await client.v1.subscriptions.cancel_async(made.id)
    await eventually(not_entitled)
    await features.update_async(feature.id, {"active": False})
