"""Webhook endpoints and events, as the emulator and Stripe both have them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import stripe

Conforms = Callable[[str, object], None]


@pytest.fixture
async def endpoint(client: Any) -> AsyncIterator[Any]:
    """An endpoint that nobody serves, deleted in the end."""
    created = await client.v1.webhook_endpoints.create_async(
        {"url": "https://example.com/webhooks", "enabled_events": ["product.deleted"]}
    )
    yield created
    await client.v1.webhook_endpoints.delete_async(created.id)


async def test_the_secret_of_an_endpoint_is_shown_once(
    client: Any, endpoint: Any, conforms: Conforms
) -> None:
    """When it is created."""
    found = await client.v1.webhook_endpoints.retrieve_async(endpoint.id)

    conforms("POST /v1/webhook_endpoints", endpoint.last_response.data)
    conforms("GET /v1/webhook_endpoints/{webhook_endpoint}", found.last_response.data)
    assert endpoint.secret.startswith("whsec_")
    assert "secret" not in found.last_response.data


async def test_an_endpoint_is_changed_and_listed(
    client: Any, endpoint: Any, conforms: Conforms
) -> None:
    """A disabled one gets no events."""
    changes = {"enabled_events": ["customer.updated"], "disabled": True}

    updated = await client.v1.webhook_endpoints.update_async(endpoint.id, changes)
    listed = await client.v1.webhook_endpoints.list_async({"limit": 100})

    conforms("POST /v1/webhook_endpoints/{webhook_endpoint}", updated.last_response.data)
    conforms("GET /v1/webhook_endpoints", listed.last_response.data)
    assert (updated.status, updated.enabled_events) == ("disabled", ["customer.updated"])
    assert endpoint.id in [one.id for one in listed.data]


async def test_an_address_needs_a_scheme(client: Any, conforms: Conforms) -> None:
    """Otherwise it is refused."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.webhook_endpoints.create_async(
            {"url": "example.com", "enabled_events": ["*"]}
        )

    conforms("error", refusal.value.json_body)


async def test_a_change_has_an_event(
    client: Any, customer: Any, conforms: Conforms, eventually: Any
) -> None:
    """With the object after it, and what was before."""
    await client.v1.customers.update_async(customer.id, {"name": "Grace"})
    found: list[Any] = []

    async def is_there() -> bool:
        listed = await client.v1.events.list_async({"type": "customer.updated", "limit": 10})
        conforms("GET /v1/events", listed.last_response.data)
        found[:] = [one for one in listed.data if one.data.object.id == customer.id]
        return bool(found)

    await eventually(is_there)
    event = await client.v1.events.retrieve_async(found[0].id)

    conforms("GET /v1/events/{id}", event.last_response.data)
    assert event.data.object.name == "Grace"
    assert event.data.previous_attributes.name is None
