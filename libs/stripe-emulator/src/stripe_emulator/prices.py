"""Prices: per unit or by tiers, licensed or metered, and which of them has a lookup key."""

from itertools import pairwise
from typing import Any

from stripe_emulator.errors import missing_parameter, refused
from stripe_emulator.event_log import Record
from stripe_emulator.expansion import without_tiers
from stripe_emulator.ids import new_id
from stripe_emulator.meters import Meters
from stripe_emulator.objects import Objects, matching
from stripe_emulator.pages import page
from stripe_emulator.parameters import is_within, merged_metadata
from stripe_emulator.products import Products

_URL = "/v1/prices"
PRICE_FIELDS = ("active", "currency", "lookup_key", "product", "type")
"""What the search of prices can compare, beside their metadata."""


class Prices:
    """All prices of the account; a lookup key belongs to one of them at most."""

    def __init__(self, products: Products, meters: Meters, record: Record) -> None:
        self._products = products
        self._meters = meters
        self._record = record
        self.objects = Objects("price")

    def create(self, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Create a price from parameters read by ``CREATE_PRICE``, and its product if described."""
        _require_one_amount(params)
        self._require_meter(params.get("recurring"))
        if ("product" in params) is ("product_data" in params):
            raise refused("You must specify one of: product, product_data.", "product")
        known = params.get("product")
        product = known and self._products.objects.get(known, "product", 400)
        self._take_lookup_key(params, None, now)
        product = product or self._products.create(params["product_data"], now)
        price = self.objects.put(_price(params, product["id"], now), now)
        self._record("price.created", without_tiers(price))
        return price

    def update(self, id_: str, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Change the given fields; what a price asks for can't be changed."""
        before = self.objects.get(id_)
        product = self._products.objects.get(before["product"])
        if params.get("active") is False and product["default_price"] == id_:
            # The message is Stripe's own (https://github.com/stripe/stripe-python/issues/658).
            raise refused(
                "This price cannot be archived because it is the default price of its product."
            )
        self._take_lookup_key(params, id_, now)
        changes = {name: value for name, value in params.items() if name != "transfer_lookup_key"}
        if "metadata" in changes:
            changes["metadata"] = merged_metadata(before["metadata"], changes["metadata"])
        price = self.objects.put({**before, **changes}, now)
        self._record("price.updated", without_tiers(price), without_tiers(before))
        return price

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of prices, the newest first."""
        exact = ("active", "currency", "product", "type")
        found = [
            one
            for one in self.objects.newest_first()
            if is_within(one["created"], params.get("created", {}))
            and one["lookup_key"] in params.get("lookup_keys", [one["lookup_key"]])
            and matching(one, {name: params[name] for name in exact if name in params})
            and matching(one["recurring"] or {}, params.get("recurring", {}))
        ]
        return page(found, _URL, "price", params)

    def has_product(self, product: str) -> bool:
        """Return whether a price of the product exists."""
        return any(one["product"] == product for one in self.objects.newest_first())

    def _take_lookup_key(self, params: dict[str, Any], id_: str | None, now: float) -> None:
        """Take a price's lookup key from the price that has it, if the request says so.

        An inactive price keeps its key, too.
        """
        key = params.get("lookup_key")
        holders = (one for one in self.objects.newest_first() if one["lookup_key"] == key)
        holder = next(holders, None) if key is not None else None
        if holder is None or holder["id"] == id_:
            return
        if not params.get("transfer_lookup_key"):
            message = f"A price (`{holder['id']}`) already uses that lookup key."
            raise refused(message, "lookup_key")
        changed = self.objects.put({**holder, "lookup_key": None}, now)
        self._record("price.updated", without_tiers(changed), without_tiers(holder))

    def _require_meter(self, recurring: dict[str, Any] | None) -> None:
        # Metered prices without a meter went with the version 2025-03-31
        # (https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing).
        if recurring is None:
            return
        metered, meter = recurring.get("usage_type") == "metered", recurring.get("meter")
        if metered and meter is None:
            raise missing_parameter("recurring[meter]")
        if meter is not None and not metered:
            raise refused("A meter needs the usage type `metered`.", "recurring[usage_type]")
        if meter is not None and not self._meters.get(meter, "recurring[meter]", 400).active:
            raise refused("The meter is inactive.", "recurring[meter]")


def _price(params: dict[str, Any], product: str, now: float) -> dict[str, Any]:
    recurring = params.get("recurring")
    tiers = params.get("tiers")
    price = {
        "id": new_id("price", 24),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": params.get("billing_scheme", "per_unit"),
        "created": int(now),
        "currency": params["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": params.get("lookup_key"),
        "metadata": params.get("metadata", {}),
        "nickname": params.get("nickname"),
        "product": product,
        "recurring": recurring
        and {
            "interval": recurring["interval"],
            "interval_count": recurring.get("interval_count", 1),
            "meter": recurring.get("meter"),
            "usage_type": recurring.get("usage_type", "licensed"),
        },
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": params.get("tiers_mode"),
        "transform_quantity": params.get("transform_quantity"),
        "type": "recurring" if recurring else "one_time",
        **_both_forms(params, "unit_amount"),
    }
    return price if tiers is None else {**price, "tiers": [_tier(tier) for tier in tiers]}


def _tier(tier: dict[str, Any]) -> dict[str, Any]:
    flat, unit = _both_forms(tier, "flat_amount"), _both_forms(tier, "unit_amount")
    return {**flat, **unit, "up_to": tier["up_to"]}


def _both_forms(params: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an amount as a whole number, where it is one, and as a decimal number."""
    whole, written = params.get(name), params.get(f"{name}_decimal")
    if written is None and whole is not None:
        written = str(whole)
    if whole is None and written is not None and "." not in written:
        whole = int(written)
    return {name: whole, f"{name}_decimal": written}


def _require_one_amount(params: dict[str, Any]) -> None:
    tiered = params.get("billing_scheme") == "tiered"
    amounts = [name for name in ("unit_amount", "unit_amount_decimal") if name in params]
    if tiered:
        if "tiers" not in params or "tiers_mode" not in params:
            raise missing_parameter("tiers_mode" if "tiers" in params else "tiers")
        if amounts:
            raise refused("A tiered price has its amounts in its tiers.", amounts[0])
        _require_ascending(params["tiers"])
    elif "tiers" in params or "tiers_mode" in params:
        raise refused("Tiers need the billing scheme `tiered`.", "billing_scheme")
    elif len(amounts) != 1:
        raise refused("You must specify one of: unit_amount, unit_amount_decimal.", "unit_amount")


def _require_ascending(tiers: list[dict[str, Any]]) -> None:
    bounds = [tier["up_to"] for tier in tiers]
    if not bounds or bounds[-1] is not None or None in bounds[:-1]:
        raise refused("The last tier, and no other, must have `up_to` of `inf`.", "tiers")
    if any(later <= earlier for earlier, later in pairwise(bounds[:-1])):
        raise refused("Tiers must be in the order of `up_to`.", "tiers")
    for place, tier in enumerate(tiers):
        for kind in ("flat_amount", "unit_amount"):
            if kind in tier and f"{kind}_decimal" in tier:
                raise refused(f"A tier has one of: {kind}, {kind}_decimal.", f"tiers[{place}]")
        if tier.keys() == {"up_to"}:
            raise refused("A tier needs a flat_amount or a unit_amount.", f"tiers[{place}]")
