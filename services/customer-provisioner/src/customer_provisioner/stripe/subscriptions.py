"""The calls about subscriptions, and about the prices, products and meters that they name."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import inf
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import stripe
from pydantic import Field

from customer_provisioner.stripe.calls import RIGHTS, StripeCalls
from customer_provisioner.stripe.responses import NotFoundError, RightMissingError
from customer_provisioner.subscriptions import Fetched, FetchedItem
from nexus_contracts.fields import MeterName, Text
from nexus_stripe.bodies import PAGE, Body, Id, Item, Page, every_item, read

PRODUCT_SECONDS: Final = 300.0
"""How long the metadata of a product is not asked for again: someone may edit it."""

METER_SECONDS: Final = 86_400.0
"""The same for a meter's event name, which never changes at Stripe."""

MAX_REMEMBERED: Final = 1_000
"""Products, or meters, that are remembered, so that memory is bounded."""

T = TypeVar("T")


class SubscriptionApi:
    """Calls Stripe as few times as it takes, and repeats none.

    Every method raises what ``StripeCalls.call`` raises.
    """

    def __init__(self, calls: StripeCalls) -> None:
        self._calls = calls
        self._v1 = calls.v1
        self._products = _Memory[dict[str, str]](PRODUCT_SECONDS)
        self._meters = _Memory[str](METER_SECONDS)

    async def fetch(self, subscription_id: str) -> Fetched:
        """Return a subscription with all of its items."""

        async def retrieve() -> _Subscription:
            return read(_Subscription, await self._v1.subscriptions.retrieve_async(subscription_id))

        found = await self._calls.call("subscription", subscription_id, retrieve)
        return await self._complete(found)

    async def page(self, after: str | None) -> tuple[list[Fetched], str | None]:
        """Return a page of all subscriptions, ended ones too, and the id to go on after, if any."""
        params: Any = {"status": "all", "limit": PAGE}
        if after is not None:
            params["starting_after"] = after

        async def list_page() -> Page[_Subscription]:
            return read(Page[_Subscription], await self._v1.subscriptions.list_async(params))

        page = await self._calls.call("subscriptions", "list", list_page)
        fetched = [await self._complete(each) for each in page.data]
        return fetched, page.data[-1].id if page.has_more else None

    async def of_customer(self, customer_id: str) -> list[str]:
        """Return the ids of a customer's subscriptions, ended ones too."""

        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"customer": customer_id, "status": "all", **cursor}
            return await self._v1.subscriptions.list_async(params)

        async def list_all() -> list[Item]:
            return await every_item(Page[Item], page)

        return [each.id for each in await self._calls.call("subscriptions", customer_id, list_all)]

    async def missing_rights(self) -> list[str]:
        """Return the rights that the key lacks for these calls, each tried once."""
        tries: dict[str, Callable[[], Awaitable[object]]] = {
            "subscription": lambda: self._v1.subscriptions.retrieve_async("sub_check"),
            "product": lambda: self._v1.products.retrieve_async("prod_check"),
            "meter": lambda: self._v1.billing.meters.retrieve_async("mtr_check"),
        }
        missing = []
        for call, try_it in tries.items():
            try:
                await self._calls.call(call, call, try_it)
            except RightMissingError:
                missing.append(RIGHTS[call])
            except NotFoundError:
                continue  # which says that it may look
        return missing

    async def _complete(self, found: "_Subscription") -> Fetched:
        items = found.items.data
        if found.items.has_more:
            items = await self._items(found.id)
        return Fetched(
            subscription_id=found.id,
            stripe_customer_id=found.customer,
            status=found.status,
            items=tuple([await self._item(each) for each in items]),
            started_at=_time(found.start_date),
            trial_end=_optional_time(found.trial_end),
            cancel_at=_optional_time(found.cancel_at),
            ended_at=_optional_time(found.ended_at),
        )

    async def _items(self, subscription_id: str) -> "list[_SubscriptionItem]":
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"subscription": subscription_id, **cursor}
            return await self._v1.subscription_items.list_async(params)

        async def list_all() -> list[_SubscriptionItem]:
            return await every_item(Page[_SubscriptionItem], page)

        return await self._calls.call("items", subscription_id, list_all)

    async def _item(self, item: "_SubscriptionItem") -> FetchedItem:
        price = item.price
        meter_id = price.recurring.meter if price.recurring else None
        return FetchedItem(
            price_id=price.id,
            product_id=price.product,
            lookup_key=price.lookup_key,
            quantity=item.quantity,
            meter=None if meter_id is None else await self._event_name(meter_id),
            period_start=_optional_time(item.current_period_start),
            period_end=_optional_time(item.current_period_end),
            price_metadata=price.metadata or {},
            product_metadata=await self._product_metadata(price.product),
        )

    async def _event_name(self, meter_id: str) -> str:
        known = self._meters.get(meter_id)
        if known is not None:
            return known

        async def retrieve() -> _Meter:
            return read(_Meter, await self._v1.billing.meters.retrieve_async(meter_id))

        meter = await self._calls.call("meter", meter_id, retrieve)
        return self._meters.put(meter_id, meter.event_name)

    async def _product_metadata(self, product_id: str) -> dict[str, str]:
        known = self._products.get(product_id)
        if known is not None:
            return known

        async def retrieve() -> _Product:
            return read(_Product, await self._v1.products.retrieve_async(product_id))

        try:
            product = await self._calls.call("product", product_id, retrieve)
        except NotFoundError:  # a deleted product says nothing
            return {}
        return self._products.put(product_id, product.metadata or {})


class _Memory(Generic[T]):
    """What Stripe said lately, by id; what was said first is forgotten first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        """Return what was said of an id within the last ``seconds``."""
        said_at, said = self._said.get(key, (-inf, None))
        return said if time.monotonic() - said_at < self._seconds else None

    def put(self, key: str, said: T) -> T:
        """Remember what was said of an id; return it."""
        self._said.pop(key, None)
        self._said[key] = (time.monotonic(), said)
        if len(self._said) > MAX_REMEMBERED:
            del self._said[next(iter(self._said))]
        return said


class _Recurring(Body):
    meter: Id | None = None


class _Price(Body):
    id: Text  # of an old one its maker chose the id
    lookup_key: Text | None = None
    product: Text
    metadata: dict[str, str] | None = None
    recurring: _Recurring | None = None


class _SubscriptionItem(Item):
    price: _Price
    quantity: Annotated[int, Field(ge=0)] | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None


class _Items(Body):
    data: list[_SubscriptionItem]
    has_more: bool = False


class _Subscription(Item):
    """A subscription in a response; times in Unix seconds."""

    object: Literal["subscription"]
    customer: Id
    status: Text
    start_date: int
    items: _Items
    trial_end: int | None = None
    cancel_at: int | None = None
    ended_at: int | None = None


class _Product(Item):
    object: Literal["product"]
    metadata: dict[str, str] | None = None


class _Meter(Item):
    object: Literal["billing.meter"]
    event_name: MeterName


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _optional_time(seconds: int | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
