"""Invoices beyond what a sandbox can be asked: their amounts, borders and settings."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient
from stripe_emulator.amounts import cost
from stripe_emulator.client import InspectionError

METER = "tool_call_executed"
HOUR, DAY = 3600, 86400
MAY_1 = 1_777_593_600  # 2026-05-01T00:00:00Z
JUNE_1 = MAY_1 + 31 * DAY


class Month:
    """A customer of a clock that stands at the beginning of May until it is advanced."""

    def __init__(self, sdk: Any, clock: str, customer: str) -> None:
        self.sdk = sdk
        self.clock = clock
        self.customer = customer

    async def subscribe(self, *prices: str, **fields: Any) -> Any:
        """Subscribe the customer to prices."""
        items = [{"price": each} for each in prices]
        described = {"customer": self.customer, "items": items, **fields}
        return await self.sdk.v1.subscriptions.create_async(described)

    async def use(self, value: int, at: int) -> None:
        """Send usage of a time."""
        payload = {"stripe_customer_id": self.customer, "value": str(value)}
        event = {"event_name": METER, "payload": payload, "timestamp": at}
        await self.sdk.v1.billing.meter_events.create_async(event)

    async def advance(self, to: int) -> None:
        """Advance the clock to a time."""
        clocks = self.sdk.v1.test_helpers.test_clocks
        await clocks.advance_async(self.clock, {"frozen_time": to})

    async def billed(self) -> list[tuple[int, int, int]]:
        """Return start, end and quantity of the lines of all invoices, the oldest first."""
        listed = await self.sdk.v1.invoices.list_async({"customer": self.customer, "limit": 100})
        return [
            (line.period.start, line.period.end, line.quantity)
            for each in reversed(listed.data)
            for line in each.lines.data
        ]


@pytest.fixture
async def month(sdk: Any) -> Month:
    """A customer without a subscription."""
    clock = await sdk.v1.test_helpers.test_clocks.create_async({"frozen_time": MAY_1})
    customer = await sdk.v1.customers.create_async({"test_clock": clock.id})
    return Month(sdk, clock.id, customer.id)


@pytest.fixture
async def price(sdk: Any) -> str:
    """A monthly price by usage."""
    return await metered_price(sdk, "month")


async def metered_price(sdk: Any, interval: str) -> str:
    """Make a price by usage."""
    meter = (await sdk.v1.billing.meters.list_async()).data[0].id
    product = await sdk.v1.products.create_async({"name": "Runs"})
    recurring = {"interval": interval, "usage_type": "metered", "meter": meter}
    described = {"product": product.id, "currency": "usd", "unit_amount": 1}
    return str((await sdk.v1.prices.create_async(described | {"recurring": recurring})).id)


async def test_usage_at_a_border_belongs_to_the_period_that_begins(
    month: Month, price: str
) -> None:
    """Each usage is on one invoice."""
    await month.subscribe(price)
    await month.advance(JUNE_1)
    for value, at in ((1, MAY_1), (2, JUNE_1 - 1), (4, JUNE_1)):
        await month.use(value, at)

    await month.advance(JUNE_1 + 31 * DAY)

    june = JUNE_1, JUNE_1 + 30 * DAY
    assert await month.billed() == [(MAY_1, JUNE_1, 3), (*june, 4)]


@pytest.mark.parametrize(("seconds", "quantity"), [(3 * DAY - 1, 1), (3 * DAY, 0)])
async def test_the_grace_of_invoices_is_an_option(
    inspection: EmulatorClient, month: Month, price: str, seconds: int, quantity: int
) -> None:
    """Three days at most."""
    await inspection.set_options(invoice_grace_seconds=3 * DAY)
    await month.subscribe(price)

    await month.advance(JUNE_1 + seconds)
    await month.use(1, JUNE_1 - 1)

    await month.advance(JUNE_1 + 4 * DAY)
    assert await month.billed() == [(MAY_1, JUNE_1, quantity)]
    with pytest.raises(InspectionError, match="at most"):
        await inspection.set_options(invoice_grace_seconds=3 * DAY + 1)


async def test_what_is_dropped_is_not_billed(
    inspection: EmulatorClient, month: Month, price: str
) -> None:
    """A sum below zero comes to nothing."""
    await month.subscribe(price)
    await inspection.add_event_fault("dropped", times=1)
    await month.use(5, MAY_1)
    await month.use(-1, MAY_1)

    await month.advance(JUNE_1)

    assert await month.billed() == [(MAY_1, JUNE_1, 0)]


async def test_a_subscription_that_ends_within_a_period_bills_until_then(
    month: Month, price: str
) -> None:
    """What is used later is on no invoice."""
    end = MAY_1 + 10 * DAY
    await month.subscribe(price, cancel_at=end)
    await month.advance(end + 60)
    for value, at in ((1, end - 1), (2, end), (4, end + 59)):
        await month.use(value, at)

    await month.advance(JUNE_1 + DAY)

    assert await month.billed() == [(MAY_1, end, 1)]


async def test_items_are_billed_when_their_own_period_ends(
    sdk: Any, month: Month, price: str
) -> None:
    """And an item that is added later from then on."""
    added = MAY_1 + 20 * DAY
    made = await month.subscribe(price)
    await month.use(1, MAY_1)
    await month.advance(added)
    another = {"subscription": made.id, "price": await metered_price(sdk, "week")}
    await sdk.v1.subscription_items.create_async(another)
    await month.use(2, added)

    await month.advance(JUNE_1)

    assert await month.billed() == [
        (added, MAY_1 + 21 * DAY, 2),
        (MAY_1 + 21 * DAY, MAY_1 + 28 * DAY, 0),
        (MAY_1, JUNE_1, 3),
    ]


async def test_a_price_that_an_item_gets_later_is_billed_from_then_on(
    sdk: Any, month: Month, price: str
) -> None:
    """What was used before has the price before."""
    made = await month.subscribe(price)
    await month.use(1, MAY_1)
    await month.advance(MAY_1 + 10 * DAY)
    item, dearer = made["items"].data[0].id, await metered_price(sdk, "month")
    await sdk.v1.subscription_items.update_async(item, {"price": dearer})
    await month.use(2, MAY_1 + 10 * DAY)

    await month.advance(JUNE_1)

    assert await month.billed() == [(MAY_1 + 10 * DAY, JUNE_1, 2)]


async def test_a_refused_change_bills_nothing(sdk: Any, month: Month, price: str) -> None:
    """Though it would have begun a new period."""
    made = await month.subscribe(price)
    await month.advance(MAY_1 + 10 * DAY)

    with pytest.raises(stripe.InvalidRequestError, match="in the future"):
        await sdk.v1.subscriptions.update_async(
            made.id, {"billing_cycle_anchor": "now", "cancel_at": MAY_1}
        )

    assert await month.billed() == []


async def test_a_trial_and_what_has_no_metered_price_make_no_invoice(
    sdk: Any, month: Month, price: str
) -> None:
    """The emulator bills usage alone."""
    product = await sdk.v1.products.create_async({"name": "Seats"})
    described = {"product": product.id, "currency": "usd", "unit_amount": 1}
    weekly = {"recurring": {"interval": "week"}}
    seats = await sdk.v1.prices.create_async(described | weekly)
    await month.subscribe(price, seats.id, trial_period_days=10)
    await month.use(1, MAY_1)

    await month.advance(MAY_1 + 14 * DAY)
    await month.advance(MAY_1 + 20 * DAY)

    assert await month.billed() == []


async def test_a_new_anchor_bills_what_was_used_until_then(
    sdk: Any, month: Month, price: str
) -> None:
    """The period before ends."""
    made = await month.subscribe(price)
    await month.use(1, MAY_1)
    await month.advance(MAY_1 + 10 * DAY)

    await sdk.v1.subscriptions.update_async(made.id, {"billing_cycle_anchor": "now"})

    assert await month.billed() == [(MAY_1, MAY_1 + 10 * DAY, 1)]


async def test_the_invoices_of_a_deleted_clock_stay_drafts(
    sdk: Any, inspection: EmulatorClient, month: Month, price: str
) -> None:
    """Time goes on without it."""
    await month.subscribe(price)
    await month.advance(JUNE_1)

    await sdk.v1.test_helpers.test_clocks.delete_async(month.clock)
    await inspection.advance_clock(400 * DAY)

    listed = await sdk.v1.invoices.list_async({"status": "draft"})
    assert [each.customer for each in listed.data] == [month.customer]


@pytest.mark.parametrize(
    ("fields", "status", "remaining"),
    [
        ({}, "paid", 0),
        ({"collection_method": "send_invoice", "days_until_due": 14}, "open", 7),
    ],
)
async def test_what_is_charged_is_paid_at_once(
    sdk: Any, month: Month, price: str, fields: dict[str, Any], status: str, remaining: int
) -> None:
    """An invoice that is sent is open, and nobody pays it here."""
    await month.subscribe(price, **fields)
    await month.use(7, MAY_1)

    await month.advance(JUNE_1 + DAY)

    [invoice] = (await sdk.v1.invoices.list_async({"customer": month.customer})).data
    assert (invoice.status, invoice.amount_remaining) == (status, remaining)
    assert invoice.status_transitions.finalized_at == JUNE_1 + HOUR
    assert invoice.due_date == (None if status == "paid" else JUNE_1 + HOUR + 14 * DAY)


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
