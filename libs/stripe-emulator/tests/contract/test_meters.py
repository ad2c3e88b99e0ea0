"""Meters, as the emulator and Stripe both have them."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]


async def test_a_created_meter_has_stripes_defaults(meter: Any, conforms: Conforms) -> None:
    """A meter reads the customer and the value under the default payload keys."""
    conforms("POST /v1/billing/meters", meter.last_response.data)
    assert meter.status == "active"
    assert meter.customer_mapping.event_payload_key == "stripe_customer_id"
    assert meter.value_settings.event_payload_key == "value"


async def test_a_meter_is_retrieved_and_listed(client: Any, meter: Any, conforms: Conforms) -> None:
    """The newest active meter comes first in the list of active ones."""
    found = await client.v1.billing.meters.retrieve_async(meter.id)
    listed = await client.v1.billing.meters.list_async({"status": "active", "limit": 1})

    conforms("GET /v1/billing/meters/{id}", found.last_response.data)
    conforms("GET /v1/billing/meters", listed.last_response.data)
    assert found.id == meter.id
    assert [one.id for one in listed.data] == [meter.id]


async def test_a_meter_can_be_renamed(client: Any, meter: Any, conforms: Conforms) -> None:
    """The display name is what an update can change."""
    updated = await client.v1.billing.meters.update_async(meter.id, {"display_name": "Runs"})

    conforms("POST /v1/billing/meters/{id}", updated.last_response.data)
    assert updated.display_name == "Runs"


async def test_an_event_name_has_one_active_meter(
    client: Any, meter: Any, conforms: Conforms
) -> None:
    """A second active meter with the same event name is refused."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meters.create_async(
            {
                "display_name": "again",
                "event_name": meter.event_name,
                "default_aggregation": {"formula": "count"},
            }
        )

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 400


async def test_an_inactive_meter_refuses_events_until_it_is_active_again(
    client: Any, meter: Any, customer: Any, conforms: Conforms
) -> None:
    """Deactivation takes the event name away, reactivation gives it back."""
    event = {
        "event_name": meter.event_name,
        "identifier": str(uuid4()),
        "payload": {"stripe_customer_id": customer.id, "value": "1"},
    }

    inactive = await client.v1.billing.meters.deactivate_async(meter.id)
    with pytest.raises(stripe.InvalidRequestError, match="No active meter found for event name"):
        await client.v1.billing.meter_events.create_async(event)
    active = await client.v1.billing.meters.reactivate_async(meter.id)
    await client.v1.billing.meter_events.create_async(event)

    conforms("POST /v1/billing/meters/{id}/deactivate", inactive.last_response.data)
    conforms("POST /v1/billing/meters/{id}/reactivate", active.last_response.data)
    assert (inactive.status, active.status) == ("inactive", "active")
    assert inactive.status_transitions.deactivated_at is not None


async def test_a_meter_needs_its_aggregation(client: Any) -> None:
    """A required parameter that is absent is named."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meters.create_async({"display_name": "x", "event_name": "x"})

    assert refusal.value.code == "parameter_missing"
    assert "default_aggregation" in str(refusal.value.param)
