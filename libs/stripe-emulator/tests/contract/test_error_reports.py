"""Meter events that are found to be wrong, as the emulator and Stripe both tell of them."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
ERROR_REPORT = "v1.billing.meter.error_report_triggered"


@pytest.mark.usefixtures("late_refusals")
async def test_usage_of_a_deleted_customer_is_refused_at_once_or_in_a_report(
    client: Any, meter: Any, customer: Any, conforms: Conforms, eventually: Eventually
) -> None:
    """Which of both differs between accounts; the report names the request by its key."""
    await client.v1.customers.delete_async(customer.id)
    key, payload = str(uuid4()), {"stripe_customer_id": customer.id, "value": "1"}
    described = {"event_name": meter.event_name, "payload": payload}
    found: list[Any] = []

    async def is_reported() -> bool:
        wanted = {"types": [ERROR_REPORT], "object_id": meter.id}
        listed = await client.v2.core.events.list_async(wanted)
        conforms("GET /v2/core/events", without_nulls(listed.last_response.data))
        found[:] = listed.data
        return bool(found)

    try:
        await client.v1.billing.meter_events.create_async(described, {"idempotency_key": key})
    except stripe.InvalidRequestError as refusal:
        conforms("error", refusal.json_body)
        return
    await eventually(is_reported)
    event = await client.v2.core.events.retrieve_async(found[0].id)

    conforms("GET /v2/core/events/{id}", without_nulls(event.last_response.data))
    data = event.data.to_dict()
    [kind] = data["reason"]["error_types"]
    [sample] = kind["sample_errors"]
    start, end = (datetime.fromisoformat(data[f"validation_{edge}"]) for edge in ("start", "end"))
    assert event.related_object.to_dict() == {
        "id": meter.id,
        "type": "billing.meter",
        "url": f"/v1/billing/meters/{meter.id}",
    }
    assert data["developer_message_summary"] == "There is 1 invalid event"
    assert data["reason"]["error_count"] == kind["error_count"] == 1
    assert kind["code"] == "meter_event_customer_not_found"
    assert sample["request"]["identifier"] == key
    assert sample.keys() == {"error_message", "request"}
    assert start < end


async def test_a_thin_event_that_is_not_there_is_said_as_api_v2_does(
    client: Any, conforms: Conforms
) -> None:
    """Its errors have a code and a message."""
    with pytest.raises(stripe.StripeError) as refusal:
        await client.v2.core.events.retrieve_async("evt_test_of_nobody")

    conforms("v2 error", refusal.value.json_body)
    assert refusal.value.http_status == 404


def without_nulls(answer: Any) -> Any:
    """Drop what is null: Stripe's document does not say so of v2, but its examples have it."""
    if isinstance(answer, dict):
        # The addresses of pages are said to be null or a text.
        pages = {"next_page_url", "previous_page_url"}
        kept = {name: each for name, each in answer.items() if each is not None or name in pages}
        return {name: without_nulls(each) for name, each in kept.items()}
    return [without_nulls(each) for each in answer] if isinstance(answer, list) else answer
