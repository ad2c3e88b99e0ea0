"""What is billed when a period of a metered price ends, as the emulator and Stripe both do it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

Conforms = Callable[[str, object], None]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
MINUTE, HOUR, DAY = 60, 3600, 86400
BEGIN = int(time.time()) // DAY * DAY - 3 * DAY
END = BEGIN + DAY


@pytest.fixture
async def test_clock(client: Any) -> AsyncIterator[Any]:
    """A clock at the beginning of a day, deleted in the end with its customers."""
    described = {"frozen_time": BEGIN, "name": "contract test"}
    created = await client.v1.test_helpers.test_clocks.create_async(described)
    yield created
    await client.v1.test_helpers.test_clocks.delete_async(created.id)


@pytest.fixture
async def subscription(client: Any, test_clock: Any, meter: Any) -> AsyncIterator[Any]:
    """A subscription of a customer of that clock to what is metered, billed every day."""
    customer = await client.v1.customers.create_async({"test_clock": test_clock.id})
    product = await client.v1.products.create_async({"name": "contract test"})
    recurring = {"interval": "day", "usage_type": "metered", "meter": meter.id}
    described = {"product": product.id, "currency": "usd", "unit_amount": 300}
    price = await client.v1.prices.create_async(described | {"recurring": recurring})
    yield await client.v1.subscriptions.create_async(
        {"customer": customer.id, "items": [{"price": price.id}]}
    )
    await client.v1.products.update_async(product.id, {"active": False})


@pytest.fixture
async def advance(
    client: Any, test_clock: Any, eventually: Eventually
) -> Callable[[int], Awaitable[None]]:
    """Advance the clock to a time, and wait until it is ready."""
    clocks = client.v1.test_helpers.test_clocks

    async def to(moment: int) -> None:
        await clocks.advance_async(test_clock.id, {"frozen_time": moment})

        async def is_ready() -> bool:
            return bool((await clocks.retrieve_async(test_clock.id)).status == "ready")

        await eventually(is_ready)

    return to


@pytest.fixture
async def use(
    client: Any, meter: Any, subscription: Any, eventually: Eventually
) -> Callable[[int, int, int], Awaitable[None]]:
    """Send usage of a time, and wait until so much is counted in the first day and an hour."""
    customer = subscription.customer

    async def send(value: int, at: int, counted: int) -> None:
        payload = {"stripe_customer_id": customer, "value": str(value)}
        event = {"event_name": meter.event_name, "payload": payload, "timestamp": at}
        await client.v1.billing.meter_events.create_async(event)
        window = {"customer": customer, "start_time": BEGIN, "end_time": END + HOUR}

        async def is_counted() -> bool:
            listed = await client.v1.billing.meters.event_summaries.list_async(meter.id, window)
            return bool(sum(each.aggregated_value for each in listed.data) == counted)

        await eventually(is_counted)

    return send


async def invoices(client: Any, subscription: Any) -> list[Any]:
    """Return the invoices of a subscription but that of its creation, the newest first."""
    listed = await client.v1.invoices.list_async({"subscription": subscription.id})
    return [each for each in listed.data if each.billing_reason != "subscription_create"]


async def test_usage_is_on_the_invoice_of_its_time_if_it_comes_before_that_is_final(
    client: Any, subscription: Any, advance: Any, use: Any, conforms: Conforms
) -> None:
    """An hour after the period's end; what comes then is on none."""
    await advance(END - MINUTE)
    await use(1, END - 2 * MINUTE, 1)
    await advance(END + 30 * MINUTE)
    [made] = await invoices(client, subscription)
    draft = await client.v1.invoices.retrieve_async(made.id)
    await use(2, END - 1, 3)
    await use(4, END, 7)
    await advance(END + 2 * HOUR)
    await use(8, END - 1, 15)

    found = await client.v1.invoices.retrieve_async(draft.id)
    listed = await client.v1.invoices.list_async({"customer": subscription.customer})
    lines = await client.v1.invoices.line_items.list_async(draft.id)
    for answer in (draft, found):
        conforms("GET /v1/invoices/{invoice}", answer.last_response.data)
    conforms("GET /v1/invoices", listed.last_response.data)
    conforms("GET /v1/invoices/{invoice}/lines", lines.last_response.data)
    assert (draft.status, draft.billing_reason) == ("draft", "subscription_cycle")
    assert draft.automatically_finalizes_at == END + HOUR
    assert found.status in {"open", "paid"}
    assert found.parent.subscription_details.subscription == subscription.id
    [line] = found.lines.data
    assert (line.quantity, line.amount, found.total) == (3, 900, 900)
    assert (line.period.start, line.period.end) == (BEGIN, END)
    assert [each.id for each in lines.data] == [line.id]


async def test_the_last_invoice_of_a_subscription_has_the_usage_of_its_last_period(
    client: Any, subscription: Any, advance: Any, use: Any
) -> None:
    """It is canceled at the period's end."""
    await client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    await advance(END - MINUTE)
    await use(1, END - 2 * MINUTE, 1)

    await advance(END + 2 * HOUR)

    [last] = await invoices(client, subscription)
    assert [each.quantity for each in last.lines.data] == [1]
    found = await client.v1.subscriptions.retrieve_async(subscription.id)
    assert (found.status, found.latest_invoice) == ("canceled", last.id)


@pytest.mark.parametrize(
    ("asked", "billed"), [({}, []), ({"invoice_now": False}, []), ({"invoice_now": True}, [1])]
)
async def test_a_subscription_that_is_canceled_at_once_is_billed_only_where_that_is_asked_for(
    client: Any,
    subscription: Any,
    advance: Any,
    use: Any,
    asked: dict[str, bool],
    billed: list[int],
) -> None:
    """Otherwise what was used in its last period is on no invoice."""
    await advance(BEGIN + 12 * HOUR)
    await use(1, BEGIN + 11 * HOUR, 1)

    await client.v1.subscriptions.cancel_async(subscription.id, asked)
    await advance(END + 2 * HOUR)

    made = await invoices(client, subscription)
    assert [line.quantity for each in made for line in each.lines.data] == billed
