"""Meter event summaries, as the emulator and Stripe both have them."""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import stripe

Conforms = Callable[[str, object], None]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
HOUR = 3600


async def report(client: Any, meter: Any, customer: Any, value: int, timestamp: int) -> None:
    """Send one event."""
    await client.v1.billing.meter_events.create_async(
        {
            "event_name": meter.event_name,
            "identifier": str(uuid4()),
            "payload": {"stripe_customer_id": customer.id, "value": str(value)},
            "timestamp": timestamp,
        }
    )


async def test_a_summary_adds_up_what_was_reported(
    client: Any,
    meter: Any,
    customer: Any,
    conforms: Conforms,
    eventually: Eventually,
) -> None:
    """Without a grouping there is one summary of the whole range, whose end is outside."""
    end = int(time.time()) // 60 * 60
    await report(client, meter, customer, 3, end - 60)
    await report(client, meter, customer, 4, end - 1)
    await report(client, meter, customer, 50, end)

    async def summed() -> bool:
        summaries = await client.v1.billing.meters.event_summaries.list_async(
            meter.id, {"customer": customer.id, "start_time": end - HOUR, "end_time": end}
        )
        conforms("GET /v1/billing/meters/{id}/event_summaries", summaries.last_response.data)
        return [one.aggregated_value for one in summaries.data] == [7]

    await eventually(summed)


async def test_summaries_by_the_hour_have_a_page_each(
    client: Any, meter: Any, customer: Any, eventually: Eventually
) -> None:
    """Ten windows make a page by default; the cursor leads to the rest."""
    end = int(time.time()) // HOUR * HOUR
    for hours in range(12):
        await report(client, meter, customer, hours + 1, end - (hours + 1) * HOUR)
    window: Any = {
        "customer": customer.id,
        "start_time": end - 12 * HOUR,
        "end_time": end,
        "value_grouping_window": "hour",
    }
    listing = client.v1.billing.meters.event_summaries

    async def paged() -> bool:
        first = await listing.list_async(meter.id, window)
        if len(first.data) < 10:
            return False
        second = await listing.list_async(meter.id, {**window, "starting_after": first.data[-1].id})
        total = sum(one.aggregated_value for one in [*first.data, *second.data])
        return (len(first.data), first.has_more, second.has_more) == (10, True, False) and (
            total == sum(range(1, 13))
        )

    await eventually(paged)


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [(None, 1, 60), (None, 0, 61), ("hour", 60, 3600), ("day", 3600, 86400)],
)
async def test_a_range_has_to_lie_on_boundaries(
    client: Any, meter: Any, customer: Any, unit: str | None, start: int, end: int
) -> None:
    """Times lie on whole minutes, or on whole hours or UTC days where those are asked for."""
    base = int(time.time()) // 86400 * 86400 - 86400
    window: Any = {"customer": customer.id, "start_time": base + start, "end_time": base + end}
    if unit is not None:
        window["value_grouping_window"] = unit

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meters.event_summaries.list_async(meter.id, window)

    assert refusal.value.http_status == 400


async def test_a_page_has_at_most_100_summaries(client: Any, meter: Any, customer: Any) -> None:
    """A limit above 100 is refused, not capped."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.billing.meters.event_summaries.list_async(
            meter.id, {"customer": customer.id, "start_time": 0, "end_time": 60, "limit": 101}
        )

    assert refusal.value.param == "limit"
