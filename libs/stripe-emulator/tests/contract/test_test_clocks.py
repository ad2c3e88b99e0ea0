"""Test clocks, as the emulator and Stripe both have them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import stripe

Conforms = Callable[[str, object], None]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
DAY = 86400
MAY_1 = 1_777_593_600  # 2026-05-01T00:00:00Z


@pytest.fixture
async def test_clock(client: Any) -> AsyncIterator[Any]:
    """A clock at the beginning of May, deleted in the end with its customers."""
    described = {"frozen_time": MAY_1, "name": "contract test"}
    created = await client.v1.test_helpers.test_clocks.create_async(described)
    yield created
    await client.v1.test_helpers.test_clocks.delete_async(created.id)


@pytest.fixture
async def subscription(client: Any, test_clock: Any) -> AsyncIterator[Any]:
    """A monthly subscription of a customer of that clock, with a trial of ten days."""
    customer = await client.v1.customers.create_async({"test_clock": test_clock.id})
    product = await client.v1.products.create_async({"name": "contract test"})
    described = {"product": product.id, "currency": "usd", "unit_amount": 1900}
    price = await client.v1.prices.create_async(described | {"recurring": {"interval": "month"}})
    yield await client.v1.subscriptions.create_async(
        {"customer": customer.id, "items": [{"price": price.id}], "trial_period_days": 10}
    )
    await client.v1.products.update_async(product.id, {"active": False})


async def advance(client: Any, test_clock: Any, to: int, eventually: Eventually) -> Any:
    """Advance a clock, wait until it is ready, and return what was answered at first."""
    clocks = client.v1.test_helpers.test_clocks
    answer = await clocks.advance_async(test_clock.id, {"frozen_time": to})

    async def is_ready() -> bool:
        found = await clocks.retrieve_async(test_clock.id)
        return (found.status, found.frozen_time) == ("ready", to)

    await eventually(is_ready)
    return answer


async def test_a_clock_is_created_found_and_listed(
    client: Any, test_clock: Any, conforms: Conforms
) -> None:
    """It stands still."""
    clocks = client.v1.test_helpers.test_clocks

    found = await clocks.retrieve_async(test_clock.id)
    listed = await clocks.list_async({"limit": 100})

    conforms("POST /v1/test_helpers/test_clocks", test_clock.last_response.data)
    conforms("GET /v1/test_helpers/test_clocks/{test_clock}", found.last_response.data)
    conforms("GET /v1/test_helpers/test_clocks", listed.last_response.data)
    assert (found.frozen_time, found.status) == (MAY_1, "ready")
    assert test_clock.id in [one.id for one in listed.data]


async def test_a_subscription_lives_by_its_customers_clock(
    client: Any, test_clock: Any, subscription: Any, conforms: Conforms, eventually: Eventually
) -> None:
    """The trial ends, then a period does, on the days that the clock says."""
    answer = await advance(client, test_clock, MAY_1 + 11 * DAY, eventually)
    paid = await client.v1.subscriptions.retrieve_async(subscription.id)
    await advance(client, test_clock, MAY_1 + 45 * DAY, eventually)
    renewed = await client.v1.subscriptions.retrieve_async(subscription.id)

    conforms("POST /v1/test_helpers/test_clocks/{test_clock}/advance", answer.last_response.data)
    assert answer.status == "advancing"
    assert answer.status_details.advancing.target_frozen_time == MAY_1 + 11 * DAY
    assert (subscription.created, subscription.test_clock) == (MAY_1, test_clock.id)
    assert (subscription.status, paid.status) == ("trialing", "active")
    assert paid["items"].data[0].current_period_start == MAY_1 + 10 * DAY
    assert renewed["items"].data[0].current_period_start == MAY_1 + 41 * DAY


@pytest.mark.usefixtures("subscription")
@pytest.mark.parametrize("target", [MAY_1, MAY_1 - DAY, MAY_1 + 70 * DAY])
async def test_a_clock_goes_ahead_by_two_intervals_at_most(
    client: Any, test_clock: Any, conforms: Conforms, target: int
) -> None:
    """And never back."""
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.test_helpers.test_clocks.advance_async(
            test_clock.id, {"frozen_time": target}
        )

    conforms("error", refusal.value.json_body)
    assert refusal.value.http_status == 400


async def test_customers_of_a_clock_are_listed_where_it_is_named(
    client: Any, test_clock: Any, subscription: Any
) -> None:
    """Their subscriptions are, where it or the customer is."""
    customers, subscriptions = client.v1.customers, client.v1.subscriptions
    wanted = {"test_clock": test_clock.id}

    everybody = await customers.list_async({"limit": 100})
    theirs = await customers.list_async(wanted)
    all_ = await subscriptions.list_async({"limit": 100})
    by_clock = await subscriptions.list_async(wanted)
    by_customer = await subscriptions.list_async({"customer": subscription.customer})

    assert subscription.customer not in [one.id for one in everybody.data]
    assert [one.id for one in theirs.data] == [subscription.customer]
    assert subscription.id not in [one.id for one in all_.data]
    assert [one.id for one in by_clock.data] == [subscription.id]
    assert [one.id for one in by_customer.data] == [subscription.id]


async def test_a_clock_has_three_customers(
    client: Any, test_clock: Any, conforms: Conforms
) -> None:
    """More are refused."""
    for _ in range(3):
        await client.v1.customers.create_async({"test_clock": test_clock.id})

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.customers.create_async({"test_clock": test_clock.id})

    conforms("error", refusal.value.json_body)


async def test_a_deleted_clock_is_gone(client: Any, conforms: Conforms) -> None:
    """Also with a customer."""
    clocks = client.v1.test_helpers.test_clocks
    clock = await clocks.create_async({"frozen_time": MAY_1})
    await client.v1.customers.create_async({"test_clock": clock.id})

    deleted = await clocks.delete_async(clock.id)

    conforms("DELETE /v1/test_helpers/test_clocks/{test_clock}", deleted.last_response.data)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await clocks.retrieve_async(clock.id)
    assert refusal.value.http_status == 404
