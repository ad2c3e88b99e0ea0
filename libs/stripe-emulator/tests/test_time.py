"""What happens as time passes; the tests move the clock instead of waiting."""

import time
from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient

METER = "tool_call_executed"
DAY = 86400


def event(customer_id: str, **changes: Any) -> Any:
    """Describe an event whose time is left to the account's clock."""
    payload = {"stripe_customer_id": customer_id, "value": "3"}
    return {"event_name": METER, "identifier": "i", "payload": payload, **changes}


async def test_after_24_hours_the_same_identifier_is_counted_again(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """Before that it is a duplicate."""
    events = sdk.v1.billing.meter_events
    await events.create_async(event(customer_id))

    await inspection.advance_clock(DAY - 60)
    with pytest.raises(stripe.InvalidRequestError, match="An event already exists"):
        await events.create_async(event(customer_id))
    await inspection.advance_clock(61)
    await events.create_async(event(customer_id))

    attempts = (await inspection.attempts())["i"]
    assert (attempts["attempts"], attempts["accepted"], attempts["duplicates"]) == (3, 2, 1)
    assert (await inspection.sums())[0]["value"] == 6


async def test_an_idempotency_key_is_deleted_after_24_hours(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """Until then the answer is replayed; afterwards a new customer is created."""
    options: stripe.RequestOptions = {"idempotency_key": "k"}
    first = await sdk.v1.customers.create_async({"name": "Ada"}, options)

    await inspection.advance_clock(DAY - 60)
    replayed = await sdk.v1.customers.create_async({"name": "Ada"}, options)
    await inspection.advance_clock(61)
    second = await sdk.v1.customers.create_async({"name": "Ada"}, options)

    assert replayed.id == first.id
    assert second.id != first.id


async def test_an_event_becomes_too_old(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """An event that was in time once is refused 35 days later."""
    timestamp = int(time.time())
    await inspection.advance_clock(35 * DAY + 60)

    with pytest.raises(stripe.InvalidRequestError, match="more than 35 days in past"):
        await sdk.v1.billing.meter_events.create_async(event(customer_id, timestamp=timestamp))


async def test_summaries_show_an_event_after_their_delay(
    sdk: stripe.StripeClient, inspection: EmulatorClient, customer_id: str
) -> None:
    """What was counted at once is seen in the summaries only later."""
    await inspection.set_options(summary_delay_seconds=30)
    start = int(await inspection.now()) // 60 * 60
    window: Any = {"customer": customer_id, "start_time": start, "end_time": start + 600}
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    summaries = sdk.v1.billing.meters.event_summaries
    await sdk.v1.billing.meter_events.create_async(event(customer_id))

    early = await summaries.list_async(meter, window)
    await inspection.advance_clock(31)
    late = await summaries.list_async(meter, window)

    assert early.data == []
    assert [one.aggregated_value for one in late.data] == [3]


async def test_the_search_lags_behind_every_change(
    sdk: stripe.StripeClient, inspection: EmulatorClient
) -> None:
    """Creation, change and deletion all become visible only after the lag; the list has no lag."""
    await inspection.set_options(search_lag_seconds=60)
    customers = sdk.v1.customers
    query: Any = {"query": "metadata['user_id']:'u-1'"}
    metadata = {"user_id": "u-1"}

    created = await customers.create_async({"email": "ada@example.org", "metadata": metadata})
    listed = await customers.list_async({"email": "ada@example.org"})
    unseen = await customers.search_async(query)
    await inspection.advance_clock(61)
    seen = await customers.search_async(query)
    await customers.delete_async(created.id)
    lingering = await customers.search_async(query)
    await inspection.advance_clock(61)
    gone = await customers.search_async(query)

    assert [len(found.data) for found in (listed, unseen, seen, lingering, gone)] == [1, 0, 1, 1, 0]


async def test_the_clock_can_be_set_and_runs_on(inspection: EmulatorClient) -> None:
    """A set clock goes on from there."""
    await inspection.set_clock(1_900_000_000)

    first = await inspection.now()
    second = await inspection.now()

    assert 1_900_000_000 <= first < second < 1_900_000_060
