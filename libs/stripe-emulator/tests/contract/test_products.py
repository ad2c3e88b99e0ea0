"""Products and their features, as the emulator and Stripe both have them."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]


@pytest.fixture
async def product(client: Any) -> AsyncIterator[Any]:
    """A product with an id of its own, archived in the end."""
    created = await client.v1.products.create_async(
        {"id": f"contract_{uuid4().hex}", "name": "Pro", "metadata": {"plan_type": "pro"}}
    )
    yield created
    await client.v1.products.update_async(created.id, {"active": False})


@pytest.fixture
async def feature(client: Any) -> AsyncIterator[Any]:
    """A feature with a lookup key of its own, archived in the end."""
    features = client.v1.entitlements.features
    created = await features.create_async({"lookup_key": f"c_{uuid4().hex}", "name": "Export"})
    yield created
    await features.update_async(created.id, {"active": False})


async def test_a_product_has_the_id_that_was_chosen(
    client: Any, product: Any, conforms: Conforms
) -> None:
    """So a second creation is refused instead of making the product twice."""
    found = await client.v1.products.retrieve_async(product.id)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.products.create_async({"id": product.id, "name": "Pro"})

    conforms("POST /v1/products", product.last_response.data)
    conforms("GET /v1/products/{id}", found.last_response.data)
    conforms("error", refusal.value.json_body)
    assert found.metadata["plan_type"] == "pro"
    assert refusal.value.code == "resource_already_exists"


async def test_a_product_is_changed_and_listed(
    client: Any, product: Any, conforms: Conforms
) -> None:
    """Only the named fields change."""
    changes = {"name": "Pro 2", "marketing_features": [{"name": "Export"}], "unit_label": "seat"}

    updated = await client.v1.products.update_async(product.id, changes)
    listed = await client.v1.products.list_async({"ids": [product.id], "active": True})

    conforms("POST /v1/products/{id}", updated.last_response.data)
    conforms("GET /v1/products", listed.last_response.data)
    assert [(one.id, one.name, one.unit_label) for one in listed.data] == [
        (product.id, "Pro 2", "seat")
    ]
    assert listed.data[0].metadata["plan_type"] == "pro"


async def test_a_product_without_prices_can_be_deleted(client: Any, conforms: Conforms) -> None:
    """One with a price can't."""
    products = client.v1.products
    empty, priced = [await products.create_async({"name": "Gone"}) for _ in range(2)]
    await client.v1.prices.create_async(
        {"product": priced.id, "currency": "usd", "unit_amount": 100}
    )

    deleted = await products.delete_async(empty.id)
    with pytest.raises(stripe.InvalidRequestError):
        await products.delete_async(priced.id)

    conforms("DELETE /v1/products/{id}", deleted.last_response.data)
    assert deleted.deleted


async def test_a_product_is_given_a_feature(
    client: Any, product: Any, feature: Any, conforms: Conforms
) -> None:
    """And loses it."""
    features = client.v1.products.features

    attached = await features.create_async(product.id, {"entitlement_feature": feature.id})
    listed = await features.list_async(product.id)
    removed = await features.delete_async(product.id, attached.id)
    left = await features.list_async(product.id)

    conforms("POST /v1/products/{product}/features", attached.last_response.data)
    conforms("GET /v1/products/{product}/features", listed.last_response.data)
    conforms("DELETE /v1/products/{product}/features/{id}", removed.last_response.data)
    assert [one.entitlement_feature.lookup_key for one in listed.data] == [feature.lookup_key]
    assert left.data == []


async def test_a_feature_is_found_by_its_lookup_key(
    client: Any, feature: Any, conforms: Conforms
) -> None:
    """No other feature can have the same key; an archived one is left out of the list."""
    features, key = client.v1.entitlements.features, feature.lookup_key

    with pytest.raises(stripe.InvalidRequestError):
        await features.create_async({"lookup_key": key, "name": "again"})
    listed = await features.list_async({"lookup_key": key})
    archived = await features.update_async(feature.id, {"active": False})
    left = await features.list_async({"lookup_key": key})
    kept = await features.list_async({"lookup_key": key, "archived": True})

    conforms("POST /v1/entitlements/features", feature.last_response.data)
    conforms("GET /v1/entitlements/features", listed.last_response.data)
    conforms("POST /v1/entitlements/features/{id}", archived.last_response.data)
    assert [len(found.data) for found in (listed, left, kept)] == [1, 0, 1]
