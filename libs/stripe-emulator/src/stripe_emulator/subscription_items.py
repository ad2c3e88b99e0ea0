"""The items of a subscription: their prices, quantities and periods."""

from typing import Any

from stripe_emulator.errors import no_such, refused
from stripe_emulator.ids import new_id
from stripe_emulator.parameters import merged_metadata
from stripe_emulator.periods import period_at
from stripe_emulator.prices import Prices
from stripe_emulator.subscription_parameters import MAX_ITEMS


class SubscriptionItems:
    """Changes the items of a subscription that is being written.

    An item has its price's id, and since when it has that price (``priced_at``).
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def add(
        self, subscription: dict[str, Any], params: dict[str, Any], param: str, now: int
    ) -> None:
        """Add an item to a subscription, from parameters that are named ``param``."""
        item = {
            "id": new_id("si", 14),
            "object": "subscription_item",
            "billing_thresholds": None,
            "created": now,
            "discounts": [],
            "metadata": params.get("metadata", {}),
            "subscription": subscription["id"],
            "tax_rates": [],
        }
        item |= self._priced(subscription, params["price"], param, now)
        self._set_quantity(item, params.get("quantity"), param)
        subscription["items"].append(item)
        if len(subscription["items"]) > MAX_ITEMS:
            raise refused(f"A subscription has at most {MAX_ITEMS} items.", "items")

    def change(
        self, subscription: dict[str, Any], params: dict[str, Any], param: str, now: int
    ) -> None:
        """Change or remove the item that the parameters name, or add one if they name none."""
        if "id" not in params:
            if "price" not in params:
                raise refused("A new item needs a price.", f"{param}[price]")
            self.add(subscription, params, param, now)
            return
        items = subscription["items"]
        item = next((each for each in items if each["id"] == params["id"]), None)
        if item is None:
            raise no_such("subscription item", params["id"], f"{param}[id]", 400)
        if params.get("deleted"):
            items.remove(item)
            if not items:
                raise refused("A subscription must have at least one active item.", param)
            return
        if params.get("price", item["price"]) != item["price"]:
            item |= self._priced(subscription, params["price"], param, now)
        if "metadata" in params:
            item["metadata"] = merged_metadata(item["metadata"], params["metadata"])
        self._set_quantity(item, params.get("quantity", item.get("quantity")), param)

    def _priced(
        self, subscription: dict[str, Any], price_id: str, param: str, now: int
    ) -> dict[str, Any]:
        price = self._prices.objects.get(price_id, f"{param}[price]", 400)
        if not price["active"] or price["recurring"] is None:
            message = f"The price specified is inactive or not recurring: {price_id}"
            raise refused(message, f"{param}[price]")
        if any(each["price"] == price_id for each in subscription["items"]):
            message = "Subscriptions cannot have multiple items with the same price."
            raise refused(message, f"{param}[price]")
        subscription["currency"] = subscription["currency"] or price["currency"]
        if price["currency"] != subscription["currency"]:
            raise refused("All prices of a subscription are of one currency.", f"{param}[price]")
        return {"price": price_id, "priced_at": now, **self.period(subscription, price_id, now)}

    def period(self, subscription: dict[str, Any], price: str, moment: int) -> dict[str, int]:
        """Return the period of a price's item at a moment, a trial being a period."""
        if subscription["status"] == "trialing":
            start, end = subscription["trial_start"], subscription["trial_end"]
        else:
            recurring = self._prices.objects.get(price)["recurring"]
            anchor = subscription["billing_cycle_anchor"]
            every = recurring["interval"], recurring["interval_count"]
            start, end = period_at(anchor, *every, moment)
            start = max(start, subscription["start_date"])
        return {"current_period_start": start, "current_period_end": end}

    def _set_quantity(self, item: dict[str, Any], quantity: int | None, param: str) -> None:
        price = self._prices.objects.get(item["price"])
        item.pop("quantity", None)
        if price["recurring"]["usage_type"] == "licensed":
            item["quantity"] = 1 if quantity is None else quantity
        elif quantity is not None:
            raise refused("A metered price has no quantity.", f"{param}[quantity]")

    def view(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with its price as it is now, and not from when on it has that."""
        shown = {name: value for name, value in item.items() if name != "priced_at"}
        return {**shown, "price": self._prices.objects.get(item["price"])}
