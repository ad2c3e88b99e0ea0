"""Customers of test clocks beside those of the account's own."""

from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient, RunningEmulator

METER = "tool_call_executed"
DAY, HOUR = 86400, 3600
MAY_1 = 1_777_593_600  # 2026-05-01T00:00:00Z
JUNE_1 = MAY_1 + 31 * DAY


@pytest.fixture
async def test_clock(sdk: Any) -> str:
    """A clock at the beginning of May."""
    described = {"frozen_time": MAY_1}
    return str((await sdk.v1.test_helpers.test_clocks.create_async(described)).id)


@pytest.fixture
async def metered(sdk: Any) -> str:
    """A monthly price by usage."""
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    product = await sdk.v1.products.create_async({"name": "Runs"})
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter}
    described = {"product": product.id, "currency": "usd", "unit_amount": 1}
    return str((await sdk.v1.prices.create_async(described | {"recurring": recurring})).id)


async def subscribed(sdk: Any, price: str, **customer: Any) -> Any:
    """Subscribe a new customer."""
    created = await sdk.v1.customers.create_async(customer)
    return await sdk.v1.subscriptions.create_async(
        {"customer": created.id, "items": [{"price": price}]}
    )


def usage(customer: str, at: int) -> Any:
    """Describe an event of value 1."""
    payload = {"stripe_customer_id": customer, "value": "1"}
    return {"event_name": METER, "payload": payload, "timestamp": at}


async def test_a_clock_moves_its_own_customers_alone(
    sdk: Any, inspection: EmulatorClient, test_clock: str, metered: str
) -> None:
    """Neither do others follow it, nor does it follow the account's clock."""
    await inspection.set_clock(MAY_1)
    theirs = await subscribed(sdk, metered, test_clock=test_clock)
    other = await subscribed(sdk, metered)

    await sdk.v1.test_helpers.test_clocks.advance_async(test_clock, {"frozen_time": JUNE_1})

    async def period_of(subscription: Any) -> int:
        found = await sdk.v1.subscriptions.retrieve_async(subscription.id)
        return int(found["items"].data[0].current_period_start)

    assert await period_of(theirs) == JUNE_1
    assert await period_of(other) < JUNE_1
    await inspection.set_clock(MAY_1 + 100 * DAY)
    assert await period_of(theirs) == JUNE_1
    assert await period_of(other) > JUNE_1


async def test_a_subscription_ends_when_the_clock_says_so(
    sdk: Any, emulator: RunningEmulator, test_clock: str, metered: str
) -> None:
    """Its event comes between those of the clock."""
    made = await subscribed(sdk, metered, test_clock=test_clock)
    await sdk.v1.subscriptions.update_async(made.id, {"cancel_at": MAY_1 + 10 * DAY})

    target = {"frozen_time": MAY_1 + 20 * DAY}
    await sdk.v1.test_helpers.test_clocks.advance_async(test_clock, target)
    found = await sdk.v1.subscriptions.retrieve_async(made.id)

    types = [one["type"] for one in emulator.account.event_log.listed({"limit": 3})["data"]]
    assert (found.status, found.ended_at) == ("canceled", MAY_1 + 10 * DAY)
    assert types == [
        "test_helpers.test_clock.ready",
        "customer.subscription.deleted",
        "test_helpers.test_clock.advancing",
    ]


async def test_usage_around_the_end_of_a_period_is_timely_by_the_customers_clock(
    sdk: Any, inspection: EmulatorClient, test_clock: str, metered: str
) -> None:
    """Whatever the account's clock says; what is far ahead of the customer's is refused."""
    await inspection.set_clock(MAY_1 + 400 * DAY)
    made = await subscribed(sdk, metered, test_clock=test_clock)
    around = (JUNE_1 - 1, JUNE_1 + 1, JUNE_1 + 59 * 60, JUNE_1 + 2 * HOUR)
    events = sdk.v1.billing.meter_events

    with pytest.raises(stripe.InvalidRequestError, match="in the future"):
        await events.create_async(usage(made.customer, around[-1]))
    target = {"frozen_time": around[-1]}
    await sdk.v1.test_helpers.test_clocks.advance_async(test_clock, target)
    for at in around:
        await events.create_async(usage(made.customer, at))

    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    window = {"customer": made.customer, "start_time": MAY_1, "end_time": JUNE_1}
    in_may = await sdk.v1.billing.meters.event_summaries.list_async(meter, window)
    [total] = await inspection.sums()
    assert [one.aggregated_value for one in in_may.data] == [1]
    assert total["value"] == 4


async def test_customers_are_deleted_with_their_clock(
    sdk: Any, inspection: EmulatorClient, test_clock: str, metered: str
) -> None:
    """Their subscriptions end, and time goes on for the others."""
    theirs = await subscribed(sdk, metered, test_clock=test_clock)

    await sdk.v1.test_helpers.test_clocks.delete_async(test_clock)
    await inspection.advance_clock(400 * DAY)

    assert (await sdk.v1.customers.retrieve_async(theirs.customer)).deleted
    assert (await sdk.v1.subscriptions.retrieve_async(theirs.id)).status == "canceled"


async def test_a_customer_of_a_clock_has_three_subscriptions(
    sdk: Any, test_clock: str, metered: str
) -> None:
    """Others have as many as they like."""
    made = await subscribed(sdk, metered, test_clock=test_clock)
    another = {"customer": made.customer, "items": [{"price": metered}]}
    for _ in range(2):
        await sdk.v1.subscriptions.create_async(another)

    with pytest.raises(stripe.InvalidRequestError, match="at most 3 subscriptions"):
        await sdk.v1.subscriptions.create_async(another)


async def test_an_unknown_clock_is_refused(sdk: Any) -> None:
    """The parameter is named."""
    with pytest.raises(stripe.InvalidRequestError, match="No such test clock") as refusal:
        await sdk.v1.customers.create_async({"test_clock": "clock_of_nobody"})

    assert (refusal.value.http_status, refusal.value.param) == (400, "test_clock")
