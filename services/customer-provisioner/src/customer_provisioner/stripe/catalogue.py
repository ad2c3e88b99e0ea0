"""The calls about what a plan file has at Stripe, made with an administrator's key."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, TypeVar

import stripe

from customer_provisioner.catalogue import (
    REPLACES,
    Catalogue,
    CatalogueChange,
    FoundFeature,
    FoundMeter,
    FoundOld,
    FoundPrice,
    FoundProduct,
)
from customer_provisioner.price_terms import Terms, TierTerms
from customer_provisioner.stripe.calls import StripeCalls
from nexus_contracts.fields import Text
from nexus_messaging.errors import TransientError
from nexus_plans import Plans
from nexus_stripe.bodies import PAGE, Body, Item, Page, every_item, read
from nexus_stripe.meter_bodies import list_active_meters

WAITS: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before a call that may succeed later is made again, under the same idempotency key."""

MAX_LOOKUP_KEYS: Final = 10
"""In one list of prices (https://docs.stripe.com/api/prices/list)."""

T = TypeVar("T")


class CatalogueApi:
    """Looks at what Stripe has, part by part, and makes changes.

    Every method raises what ``StripeCalls.call`` raises.
    """

    def __init__(self, calls: StripeCalls) -> None:
        self._calls = calls
        self._client = calls.client
        self._v1 = calls.v1

    async def with_meters(self, _plans: Plans, found: Catalogue) -> Catalogue:
        """Return the catalogue with all active meters."""
        bodies = await self._call("meters", lambda: list_active_meters(self._client))
        meters = {each.event_name: FoundMeter(each.id, each.meter()) for each in bodies}
        return replace(found, meters=meters)

    async def with_features(self, plans: Plans, found: Catalogue) -> Catalogue:
        """Return the catalogue with all features, archived ones too."""
        if not any(plan.features for plan in plans.plans.values()):
            return found
        listed = [*await self._features(archived=True), *await self._features(archived=False)]
        features = {each.lookup_key: FoundFeature(each.id, each.active) for each in listed}
        return replace(found, features=features)

    async def with_products(self, plans: Plans, found: Catalogue) -> Catalogue:
        """Return the catalogue with the products of the file, and their features."""
        ids = list(plans.products)
        products: dict[str, FoundProduct] = {}
        for start in range(0, len(ids), PAGE):
            for each in await self._products(ids[start : start + PAGE]):
                features = frozenset(await self._features_of(each.id))
                products[each.id] = FoundProduct(each.active, each.texts(), features)
        return replace(found, products=products)

    async def with_prices(self, plans: Plans, found: Catalogue) -> Catalogue:
        """Return the catalogue with the prices that have the file's lookup keys."""
        event_names = {each.id: name for name, each in found.meters.items()}
        keys = [price.lookup_key for plan in plans.plans.values() for price in plan.prices]
        prices: dict[str, FoundPrice] = {}
        for start in range(0, len(keys), MAX_LOOKUP_KEYS):
            for each in await self._prices(keys[start : start + MAX_LOOKUP_KEYS]):
                prices[each.lookup_key or ""] = each.found(event_names)
        return replace(found, prices=prices)

    async def with_replaced(self, _plans: Plans, found: Catalogue) -> Catalogue:
        """Return the catalogue with the prices that those found have replaced."""
        replaced = {key: await self._before(price) for key, price in found.prices.items()}
        return replace(found, replaced=replaced)

    async def make(self, change: CatalogueChange, number: int) -> None:
        """Make a change; ``number`` is that of the idempotency key."""
        request = change.request
        if request is None:
            raise ValueError("nothing is to be done")

        async def post() -> None:
            key = request.idempotency_key(number)
            response = await self._client.raw_request_async(
                "post", request.path, **request.params, idempotency_key=key
            )
            read(Item, response)

        await self._call("ensure", post)

    async def _features(self, *, archived: bool) -> "list[_Feature]":
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"archived": archived, **cursor}
            return await self._v1.entitlements.features.list_async(params)

        return await self._call("features", lambda: every_item(Page[_Feature], page))

    async def _features_of(self, product_id: str) -> list[str]:
        async def page(cursor: Any) -> stripe.StripeObject:
            return await self._v1.products.features.list_async(product_id, cursor)

        listed = await self._call(
            "product_features", lambda: every_item(Page[_ProductFeature], page)
        )
        return [each.entitlement_feature.lookup_key for each in listed]

    async def _products(self, ids: list[str]) -> "list[_Product]":
        async def list_all() -> list[_Product]:
            params: Any = {"ids": ids, "limit": PAGE}
            return read(Page[_Product], await self._v1.products.list_async(params)).data

        return await self._call("products", list_all)

    async def _prices(self, keys: list[str]) -> "list[_Price]":
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"lookup_keys": keys, "expand": ["data.tiers"], **cursor}
            return await self._v1.prices.list_async(params)

        return await self._call("prices", lambda: every_item(Page[_Price], page))

    async def _before(self, price: FoundPrice) -> list[FoundOld]:
        """Return the prices before one, up to one that is archived: a run does the oldest first."""
        before: list[FoundOld] = []
        known, price_id = {price.id}, price.metadata.get(REPLACES)
        while price_id is not None and price_id not in known:
            known.add(price_id)
            old, price_id = await self._old(price_id)
            before.append(old)
            if not old.active:
                break
        return before

    async def _old(self, price_id: str) -> tuple[FoundOld, str | None]:
        """Return a price that was replaced, and the one that it had replaced, if any."""

        async def retrieve() -> _OldPrice:
            params: Any = {"expand": ["product"]}
            return read(_OldPrice, await self._v1.prices.retrieve_async(price_id, params))

        async def subscriptions() -> Page[Item]:
            params: Any = {"price": price_id, "status": "all", "limit": 1}
            return read(Page[Item], await self._v1.subscriptions.list_async(params))

        old = await self._call("price", retrieve)
        used = bool((await self._call("price_subscriptions", subscriptions)).data)
        is_default = old.product.default_price == old.id
        found = FoundOld(old.id, old.active, used, old.product.id, is_default)
        return found, old.metadata.get(REPLACES)

    async def _call(self, call: str, work: Callable[[], Awaitable[T]]) -> T:
        for wait in WAITS:
            try:
                return await self._calls.call(call, call, work)
            except TransientError as error:
                if type(error) is not TransientError:
                    raise
            await asyncio.sleep(wait)
        return await self._calls.call(call, call, work)


class _Feature(Item):
    lookup_key: Text
    active: bool


class _ProductFeature(Item):
    entitlement_feature: _Feature


class _Product(Item):
    active: bool
    name: str
    description: str | None = None
    unit_label: str | None = None
    tax_code: str | None = None

    def texts(self) -> dict[str, str | None]:
        """Return what the plan file may say of it."""
        return self.model_dump(exclude={"id", "active"})


class _ProductOfPrice(Item):
    default_price: str | None = None


class _OldPrice(Item):
    active: bool
    product: _ProductOfPrice
    metadata: dict[str, str]


class _Tier(Body):
    up_to: int | None
    unit_amount_decimal: str | None = None
    flat_amount_decimal: str | None = None


class _Recurring(Body):
    interval: str
    interval_count: int
    usage_type: str
    meter: str | None = None


class _Transform(Body):
    divide_by: int
    round: str


class _Price(Item):
    active: bool
    lookup_key: str | None
    product: str
    currency: str
    recurring: _Recurring | None = None
    unit_amount_decimal: str | None = None
    tiers_mode: str | None = None
    tiers: list[_Tier] | None = None
    transform_quantity: _Transform | None = None
    tax_behavior: str | None = None
    metadata: dict[str, str]

    def found(self, event_names: dict[str, str]) -> FoundPrice:
        """Return it with the event name of its meter, where that is active."""
        recurring = self.recurring or _Recurring(interval="once", interval_count=1, usage_type="")
        quantity, amount = self.transform_quantity, self.unit_amount_decimal
        terms = Terms(
            product=self.product,
            currency=self.currency,
            interval=recurring.interval,
            interval_count=recurring.interval_count,
            usage_type=recurring.usage_type,
            meter=event_names.get(recurring.meter or "", recurring.meter),
            unit_amount=None if amount is None else Decimal(amount),
            tiers_mode=self.tiers_mode,
            tiers=tuple(
                TierTerms(
                    tier.up_to,
                    Decimal(tier.unit_amount_decimal or 0),
                    Decimal(tier.flat_amount_decimal or 0),
                )
                for tier in self.tiers or ()
            ),
            transform_quantity=None if quantity is None else (quantity.divide_by, quantity.round),
            tax_behavior=self.tax_behavior,
        )
        return FoundPrice(self.id, self.active, terms, self.metadata)
