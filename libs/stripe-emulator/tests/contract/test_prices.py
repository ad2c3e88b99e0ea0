"""Prices, as the emulator and Stripe both have them."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
GRADUATED = {
    "billing_scheme": "tiered",
    "tiers_mode": "graduated",
    "tiers": [
        {"up_to": 1000, "unit_amount": 0},
        {"up_to": "inf", "unit_amount_decimal": "0.25", "flat_amount": 500},
    ],
}


@pytest.fixture
async def product(client: Any) -> AsyncIterator[Any]:
    """A product of its own, archived in the end."""
    created = await client.v1.products.create_async({"name": "Pro"})
    yield created
    await client.v1.products.update_async(created.id, {"active": False})


def price(product: Any, **changes: Any) -> dict[str, Any]:
    """Describe a monthly price of the product."""
    return {
        "product": product.id,
        "currency": "usd",
        "recurring": {"interval": "month"},
        **changes,
    }


async def test_a_licensed_price_is_per_unit(client: Any, product: Any, conforms: Conforms) -> None:
    """A whole amount is shown as a decimal number, too."""
    created = await client.v1.prices.create_async(price(product, unit_amount=1900, nickname="seat"))
    found = await client.v1.prices.retrieve_async(created.id)

    conforms("POST /v1/prices", created.last_response.data)
    conforms("GET /v1/prices/{price}", found.last_response.data)
    assert (found.recurring.usage_type, found.recurring.interval_count) == ("licensed", 1)
    assert (str(found.unit_amount_decimal), found.type) == ("1900", "recurring")


async def test_a_metered_price_names_its_meter(client: Any, product: Any, meter: Any) -> None:
    """Without a meter it is refused."""
    metered = {"interval": "month", "usage_type": "metered"}

    created = await client.v1.prices.create_async(
        price(product, unit_amount_decimal="0.5", recurring=metered | {"meter": meter.id})
    )
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.prices.create_async(price(product, unit_amount=1, recurring=metered))

    assert created.recurring.meter == meter.id
    assert (created.unit_amount, str(created.unit_amount_decimal)) == (None, "0.5")


@pytest.mark.parametrize("mode", ["graduated", "volume"])
async def test_tiers_are_shown_when_asked_for(
    client: Any, product: Any, mode: str, conforms: Conforms
) -> None:
    """In a list their path begins with `data`."""
    tiered = price(product, **GRADUATED | {"tiers_mode": mode})

    created = await client.v1.prices.create_async(tiered)
    found = await client.v1.prices.retrieve_async(created.id, {"expand": ["tiers", "product"]})
    listed = await client.v1.prices.list_async({"product": product.id, "expand": ["data.tiers"]})

    conforms("GET /v1/prices/{price}", found.last_response.data)
    conforms("GET /v1/prices", listed.last_response.data)
    assert "tiers" not in created.last_response.data
    assert found.product.name == "Pro"
    assert [(tier.up_to, tier.unit_amount, tier.flat_amount) for tier in found.tiers] == [
        (1000, 0, None),
        (None, None, 500),
    ]
    assert str(listed.data[0].tiers[1].unit_amount_decimal) == "0.25"
    assert found.tiers_mode == mode


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unit_amount": 1, "unit_amount_decimal": "1"},
        {"unit_amount_decimal": "0.1234567890123"},
        {**GRADUATED, "unit_amount": 1},
        {**GRADUATED, "tiers": [{"up_to": 10, "unit_amount": 1}]},
        {**GRADUATED, "tiers": [{"up_to": n, "unit_amount": 1} for n in (10, 5, "inf")]},
        {"billing_scheme": "tiered", "tiers_mode": "volume"},
        {"unit_amount": 1, "expand": ["nothing"]},
        {"unit_amount": 1, "product": "prod_missing"},
    ],
)
async def test_a_contradictory_price_is_refused(
    client: Any, product: Any, conforms: Conforms, changes: dict[str, Any]
) -> None:
    """It has one amount, or tiers in ascending order of which the last is open."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.prices.create_async(price(product) | changes)

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 400


async def test_a_lookup_key_is_transferred_to_another_price(
    client: Any, product: Any, conforms: Conforms
) -> None:
    """Only if the request says so; the amount of a price can't be changed."""
    key = f"contract_{uuid4().hex}"
    old = await client.v1.prices.create_async(price(product, unit_amount=100, lookup_key=key))
    new = price(product, unit_amount=200, lookup_key=key)

    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await client.v1.prices.create_async(new)
    created = await client.v1.prices.create_async(new | {"transfer_lookup_key": True})
    archived = await client.v1.prices.update_async(old.id, {"active": False})
    listed = await client.v1.prices.list_async({"lookup_keys": [key]})
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
        await client.v1.prices.update_async(created.id, {"unit_amount": 300})

    conforms("POST /v1/prices/{price}", archived.last_response.data)
    assert [one.id for one in listed.data] == [created.id]
    assert (archived.lookup_key, archived.active) == (None, False)


async def test_prices_are_filtered(client: Any, product: Any) -> None:
    """By whether they are active, and by type."""
    once = {"product": product.id, "currency": "usd", "unit_amount": 5}
    await client.v1.prices.create_async(once)
    monthly = await client.v1.prices.create_async(price(product, unit_amount=7, active=False))

    recurring = await client.v1.prices.list_async({"product": product.id, "type": "recurring"})
    inactive = await client.v1.prices.list_async({"product": product.id, "active": False})

    assert [one.id for one in recurring.data] == [monthly.id] == [one.id for one in inactive.data]


async def test_prices_and_products_are_searched(
    client: Any, product: Any, eventually: Any, conforms: Conforms
) -> None:
    """The search lags at Stripe."""
    plan = uuid4().hex
    await client.v1.products.update_async(product.id, {"metadata": {"plan_type": plan}})
    await client.v1.prices.create_async(price(product, unit_amount=1, lookup_key=plan))

    async def both_are_found() -> bool:
        prices = await client.v1.prices.search_async({"query": f"lookup_key:'{plan}'"})
        query = f"active:'true' AND metadata['plan_type']:'{plan}'"
        products = await client.v1.products.search_async({"query": query})
        conforms("GET /v1/prices/search", prices.last_response.data)
        conforms("GET /v1/products/search", products.last_response.data)
        return len(prices.data) == len(products.data) == 1

    await eventually(both_are_found)


async def test_the_default_price_of_a_product_is_not_archived(client: Any, product: Any) -> None:
    """Until the product has another one, or none."""
    created = await client.v1.prices.create_async(price(product, unit_amount=1))
    await client.v1.products.update_async(product.id, {"default_price": created.id})

    with pytest.raises(stripe.InvalidRequestError, match="is the default price of its product"):
        await client.v1.prices.update_async(created.id, {"active": False})
    await client.v1.products.update_async(product.id, {"default_price": ""})
    archived = await client.v1.prices.update_async(created.id, {"active": False})

    assert archived.active is False
