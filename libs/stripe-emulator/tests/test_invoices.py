"""Invoices beyond what a sandbox can be asked: their amounts, borders and settings."""

from decimal import Decimal
from typing import Any

import pytest
import stripe
from aiohttp import ClientResponseError

from stripe_emulator import EmulatorClient
from stripe_emulator.amounts import cost

METER = "tool_call_executed"
HOUR, DAY = 3600, 86400
MAY_1 = 1_777_593_600  # 2026-05-01T00:00:00Z
JUNE_1 = MAY_1 + 31 * DAY


@pytest.fixture
async def price(sdk: Any, inspection: EmulatorClient) -> str:
    """A monthly price by usage; the account's clock is set to the beginning of May."""
    await inspection.set_clock(MAY_1)
    return await metered_price(sdk, "month")


async def metered_price(sdk: Any, interval: str) -> str:
    """Make a price by usage."""
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    product = await sdk.v1.products.create_async({"name": "Runs"})
    recurring = {"interval": interval, "usage_type": "metered", "meter": meter}
    described = {"product": product.id, "currency": "usd", "unit_amount": 1}
    return str((await sdk.v1.prices.create_async(described | {"recurring": recurring})).id)


async def subscribe(sdk: Any, customer: str, *prices: str, **fields: Any) -> Any:
    """Subscribe a customer to prices."""
    items = [{"price": each} for each in prices]
    return await sdk.v1.subscriptions.create_async({"customer": customer, "items": items, **fields})


async def use(sdk: Any, customer: str, value: int, at: int) -> None:
    """Send usage of a time."""
    payload = {"stripe_customer_id": customer, "value": str(value)}
    event = {"event_name": METER, "payload": payload, "timestamp": at}
    await sdk.v1.billing.meter_events.create_async(event)


async def billed(sdk: Any, customer: str) -> list[tuple[int, int, int]]:
    """Return start, end and quantity of every line of the customer's invoices, the oldest first."""
    listed = await sdk.v1.invoices.list_async({"customer": customer, "limit": 100})
    return [
        (line.period.start, line.period.end, line.quantity)
        for each in reversed(listed.data)
        for line in each.lines.data
    ]


async def test_usage_at_a_border_belongs_to_the_period_that_begins(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """Each usage is on one invoice."""
    await subscribe(sdk, customer_id, price)
    await inspection.set_clock(JUNE_1)
    for value, at in ((1, MAY_1), (2, JUNE_1 - 1), (4, JUNE_1)):
        await use(sdk, customer_id, value, at)

    await inspection.set_clock(JUNE_1 + 31 * DAY)

    june = JUNE_1, JUNE_1 + 30 * DAY
    assert await billed(sdk, customer_id) == [(MAY_1, JUNE_1, 3), (*june, 4)]


@pytest.mark.parametrize(("seconds", "quantity"), [(3 * DAY - 1, 1), (3 * DAY, 0)])
async def test_the_grace_of_invoices_is_an_option(
    sdk: Any,
    inspection: EmulatorClient,
    customer_id: str,
    price: str,
    seconds: int,
    quantity: int,
) -> None:
    """Three days at most."""
    await inspection.set_options(invoice_grace_seconds=3 * DAY)
    await subscribe(sdk, customer_id, price)

    await inspection.set_clock(JUNE_1 + seconds)
    await use(sdk, customer_id, 1, JUNE_1 - 1)

    await inspection.set_clock(JUNE_1 + 4 * DAY)
    assert await billed(sdk, customer_id) == [(MAY_1, JUNE_1, quantity)]
    with pytest.raises(ClientResponseError):
        await inspection.set_options(invoice_grace_seconds=3 * DAY + 1)


async def test_what_is_canceled_or_dropped_is_not_billed(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """A sum below zero comes to nothing."""
    await subscribe(sdk, customer_id, price)
    await inspection.add_event_fault("dropped", times=1)
    await use(sdk, customer_id, 5, MAY_1)
    await use(sdk, customer_id, -1, MAY_1)

    await inspection.set_clock(JUNE_1)

    assert await billed(sdk, customer_id) == [(MAY_1, JUNE_1, 0)]


async def test_a_subscription_ends_in_the_middle_of_a_period_and_bills_until_then(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """What is used later is on no invoice."""
    end = MAY_1 + 10 * DAY
    await subscribe(sdk, customer_id, price, cancel_at=end)
    await inspection.set_clock(end + 60)
    for value, at in ((1, end - 1), (2, end), (4, end + 59)):
        await use(sdk, customer_id, value, at)

    await inspection.set_clock(JUNE_1 + DAY)

    assert await billed(sdk, customer_id) == [(MAY_1, end, 1)]


async def test_items_are_billed_when_their_own_period_ends(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """And an item that is added later from then on."""
    added = MAY_1 + 20 * DAY
    made = await subscribe(sdk, customer_id, price)
    await use(sdk, customer_id, 1, MAY_1)
    await inspection.set_clock(added)
    another = {"subscription": made.id, "price": await metered_price(sdk, "week")}
    await sdk.v1.subscription_items.create_async(another)
    await use(sdk, customer_id, 2, added)

    await inspection.set_clock(JUNE_1)

    assert await billed(sdk, customer_id) == [
        (added, MAY_1 + 21 * DAY, 2),
        (MAY_1 + 21 * DAY, MAY_1 + 28 * DAY, 0),
        (MAY_1, JUNE_1, 3),
    ]


async def test_a_trial_and_what_has_no_metered_price_make_no_invoice(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """The emulator bills usage alone."""
    product = await sdk.v1.products.create_async({"name": "Seats"})
    seats = await sdk.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "day"},
        }
    )
    await subscribe(sdk, customer_id, price, seats.id, trial_period_days=10)
    await use(sdk, customer_id, 1, MAY_1)

    await inspection.set_clock(MAY_1 + 20 * DAY)

    assert await billed(sdk, customer_id) == []


async def test_a_new_anchor_bills_what_was_used_until_then(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """The period before ends."""
    made = await subscribe(sdk, customer_id, price)
    await use(sdk, customer_id, 1, MAY_1)
    await inspection.set_clock(MAY_1 + 10 * DAY)

    await sdk.v1.subscriptions.update_async(made.id, {"billing_cycle_anchor": "now"})

    [(start, end, quantity)] = await billed(sdk, customer_id)
    assert (start, quantity) == (MAY_1, 1)
    assert MAY_1 + 10 * DAY <= end < MAY_1 + 10 * DAY + 60


async def test_the_invoices_of_a_deleted_clock_stay_drafts(
    sdk: Any, inspection: EmulatorClient, price: str
) -> None:
    """Time goes on without it."""
    clocks = sdk.v1.test_helpers.test_clocks
    clock = await clocks.create_async({"frozen_time": MAY_1})
    customer = await sdk.v1.customers.create_async({"test_clock": clock.id})
    await subscribe(sdk, customer.id, price)
    await clocks.advance_async(clock.id, {"frozen_time": JUNE_1})

    await clocks.delete_async(clock.id)
    await inspection.set_clock(JUNE_1 + DAY)

    listed = await sdk.v1.invoices.list_async({"status": "draft"})
    assert [each.customer for each in listed.data] == [customer.id]


async def test_an_invoice_that_is_sent_is_open_until_it_is_paid(
    sdk: Any, inspection: EmulatorClient, customer_id: str, price: str
) -> None:
    """Which nobody does here; what is charged is paid at once."""
    sent = {"collection_method": "send_invoice", "days_until_due": 14}
    await subscribe(sdk, customer_id, price, **sent)
    await subscribe(sdk, customer_id, price)
    await use(sdk, customer_id, 1, MAY_1)

    await inspection.set_clock(JUNE_1 + DAY)

    paid, open_ = (await sdk.v1.invoices.list_async({"customer": customer_id})).data
    if paid.status == "open":
        paid, open_ = open_, paid
    assert (paid.status, paid.amount_paid) == ("paid", 1)
    assert (open_.status, open_.amount_remaining) == ("open", 1)
    assert open_.due_date == open_.status_transitions.finalized_at + 14 * DAY


async def test_an_unknown_invoice_is_refused(sdk: Any) -> None:
    """As every unknown object is."""
    with pytest.raises(stripe.InvalidRequestError, match="No such invoice"):
        await sdk.v1.invoices.retrieve_async("in_of_nobody")


def tier(up_to: int | None, flat: str, unit: str) -> dict[str, Any]:
    """Describe a tier."""
    return {"up_to": up_to, "flat_amount_decimal": flat, "unit_amount_decimal": unit}


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        ({"unit_amount_decimal": "0.5"}, "3", 2),
        ({"transform_quantity": {"divide_by": 60, "round": "up"}}, "150", 30),
        ({"transform_quantity": {"divide_by": 60, "round": "down"}}, "150", 20),
        ({"tiers_mode": "graduated"}, "0", 100),
        ({"tiers_mode": "graduated"}, "10", 120),
        ({"tiers_mode": "graduated"}, "12", 172),
        ({"tiers_mode": "volume"}, "10", 120),
        ({"tiers_mode": "volume"}, "12", 62),
    ],
)
def test_amounts_follow_from_the_price(price: dict[str, Any], quantity: str, amount: int) -> None:
    """Per unit, in packages, and by tiers."""
    whole = {"transform_quantity": None, "unit_amount_decimal": "10", **price}
    if "tiers_mode" in price:
        whole["tiers"] = [tier(10, "100", "2"), tier(None, "50", "1")]

    assert cost(whole, Decimal(quantity)) == amount
