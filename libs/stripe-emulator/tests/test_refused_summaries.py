"""Whose summaries the emulator refuses to show, and what they cost of the rate limit."""

from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient


@pytest.fixture
async def window(sdk: Any, inspection: EmulatorClient, customer_id: str) -> dict[str, Any]:
    """The parameters of a summary of the present minute, which has an event."""
    start = int(await inspection.now()) // 60 * 60
    payload = {"stripe_customer_id": customer_id, "value": "3"}
    described = {"event_name": "tool_call_executed", "payload": payload, "timestamp": start}
    await sdk.v1.billing.meter_events.create_async(described)
    return {"customer": customer_id, "start_time": start, "end_time": start + 120}


async def meter_of(sdk: Any) -> str:
    """Return the id of the emulator's meter."""
    return str((await sdk.v1.billing.meters.list_async()).data[0].id)


async def test_a_deleted_customer_has_no_summaries(
    sdk: Any, customer_id: str, window: dict[str, Any]
) -> None:
    """Though its usage was counted."""
    await sdk.v1.customers.delete_async(customer_id)

    with pytest.raises(stripe.InvalidRequestError, match="No such customer") as refusal:
        await sdk.v1.billing.meters.event_summaries.list_async(await meter_of(sdk), window)

    assert (refusal.value.http_status, refusal.value.param) == (400, "customer")


async def test_an_unknown_meter_has_no_summaries(sdk: Any, window: dict[str, Any]) -> None:
    """The path names it, so that is a 404."""
    with pytest.raises(stripe.InvalidRequestError, match="No such billing meter") as refusal:
        await sdk.v1.billing.meters.event_summaries.list_async("mtr_of_nobody", window)

    assert refusal.value.http_status == 404


async def test_an_inactive_meter_keeps_its_summaries(sdk: Any, window: dict[str, Any]) -> None:
    """It refuses new events alone."""
    meter = await meter_of(sdk)
    await sdk.v1.billing.meters.deactivate_async(meter)

    listed = await sdk.v1.billing.meters.event_summaries.list_async(meter, window)

    assert [one.aggregated_value for one in listed.data] == [3]


async def test_summaries_and_other_calls_share_the_basic_limit(
    sdk: Any, inspection: EmulatorClient, customer_id: str, window: dict[str, Any]
) -> None:
    """Who reads summaries as fast as it can leaves nothing for reports."""
    meter = await meter_of(sdk)
    await inspection.set_options(rate_limits=True, basic_per_second=1)
    await sdk.v1.billing.meters.event_summaries.list_async(meter, window)

    with pytest.raises(stripe.RateLimitError) as refusal:
        await sdk.v1.customers.retrieve_async(customer_id)

    headers = refusal.value.headers or {}
    assert headers["Stripe-Rate-Limited-Reason"] == "global-rate"
