"""Subscriptions: their items, periods and trials, and how they end as time passes."""

from collections.abc import Callable
from typing import Any

from stripe_emulator.errors import invalid_parameter, no_such, refused
from stripe_emulator.ids import new_id
from stripe_emulator.objects import Objects, matching
from stripe_emulator.pages import DEFAULT_LIMIT, page
from stripe_emulator.parameters import is_within, merged_metadata
from stripe_emulator.periods import boundary
from stripe_emulator.prices import Prices
from stripe_emulator.subscription_items import SubscriptionItems
from stripe_emulator.subscription_objects import blank_subscription
from stripe_emulator.subscription_parameters import PAYMENT_STATUSES

_URL = "/v1/subscriptions"
_DAY = 86400
_ENDED = ("canceled", "incomplete_expired")

Now = Callable[[str | None], float]
"""Returns the time by a test clock, or by the account's clock for None, in unix seconds."""

Changed = Callable[[str, dict[str, Any], dict[str, Any] | None], None]
"""Gets the kind of change, the subscription and what it was before."""

Bill = Callable[[dict[str, Any], list[dict[str, Any]], int, str], str | None]
"""Makes an invoice of items whose period ends, at a time and for a reason; returns its id if so."""


class Subscriptions:
    """All subscriptions of the account; answers show the prices of their items as they are now.

    ``settle`` makes what time has brought: a trial or a period ends, or the subscription does.
    """

    def __init__(self, prices: Prices, now: Now, bill: Bill, changed: Changed) -> None:
        self._prices = prices
        self._items = SubscriptionItems(prices)
        self._now = now
        self._bill = bill
        self._changed = changed
        self._kept = Objects("subscription")
        self._due: dict[str | None, float] = {}

    def create(self, params: dict[str, Any], test_clock: str | None = None) -> dict[str, Any]:
        """Create a subscription of a customer who has been checked, by the customer's clock."""
        now = int(self._now(test_clock))
        subscription = blank_subscription(new_id("sub", 24), now, params)
        subscription["test_clock"] = test_clock
        trial_end = _trial_end(params, now)
        if trial_end is not None:
            subscription |= {"status": "trialing", "trial_start": now, "trial_end": trial_end}
        subscription["billing_cycle_anchor"] = (
            trial_end or params.get("billing_cycle_anchor") or now
        )
        if not params["items"]:
            raise refused("A subscription needs an item.", "items")
        for place, item in enumerate(params["items"]):
            self._items.add(subscription, item, f"items[{place}]", now)
        self._set_cancellation(subscription, params, now)
        return self._keep("created", subscription, None)

    def update(self, id_: str, params: dict[str, Any]) -> dict[str, Any]:
        """Change the given fields and items."""
        before = self._kept.get(id_)
        now = self._time_of(before)
        if before["status"] in _ENDED and params.keys() - {"metadata"}:
            message = "A canceled subscription can only update its cancellation_details and"
            raise refused(f"{message} metadata.")
        subscription = {**before, "items": [dict(item) for item in before["items"]]}
        for place, item in enumerate(params.get("items", [])):
            self._items.change(subscription, item, f"items[{place}]", now)
        if "metadata" in params:
            subscription["metadata"] = merged_metadata(before["metadata"], params["metadata"])
        for name in ("collection_method", "days_until_due", "description"):
            if name in params:
                subscription[name] = params[name]
        if params.get("trial_end") is not None:
            self._set_trial(subscription, params["trial_end"], now)
        if params.get("billing_cycle_anchor") == "now":
            self._anchor(subscription, now)
        self._set_cancellation(subscription, params, now)
        if params.get("billing_cycle_anchor") == "now":
            self._invoice(subscription, before["items"], now, "subscription_update")
        return self._keep("updated", subscription, before)

    def cancel(self, id_: str, *, invoice_now: bool = False) -> dict[str, Any]:
        """End a subscription now; what was used in the period is billed with ``invoice_now``."""
        before = self._kept.get(id_)
        if before["status"] in _ENDED:
            raise no_such("subscription", id_)
        return self._end(
            before, self._time_of(before), "subscription_update" if invoice_now else None
        )

    def cancel_all_of(self, customer: str) -> None:
        """End all subscriptions of a customer, as the customer's deletion does."""
        for one in self._kept.newest_first():
            if one["customer"] == customer and one["status"] not in _ENDED:
                self._end(one, self._time_of(one), None)

    def set_status(self, id_: str, status: str) -> dict[str, Any]:
        """Set the status that payments would bring, such as ``past_due``."""
        before = self._kept.get(id_)
        if status not in PAYMENT_STATUSES:
            allowed = ", ".join(PAYMENT_STATUSES)
            raise invalid_parameter("status", f"Invalid status: must be one of {allowed}")
        ended = self._time_of(before) if status in _ENDED else None
        return self._keep("updated", {**before, "status": status, "ended_at": ended}, before)

    def get(self, id_: str) -> dict[str, Any]:
        """Return a subscription, which may have ended; 404 for an unknown id."""
        return self._view(self._kept.get(id_))

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of subscriptions, the newest first; by default of those not canceled.

        Those of a test clock are shown where it or the customer is asked for alone.
        """
        exact = [name for name in ("customer", "collection_method", "test_clock") if name in params]
        clocks_too = params.keys() & {"customer", "test_clock"}
        found = [
            self._view(one)
            for one in self._kept.newest_first()
            if matching(one, {name: params[name] for name in exact})
            and _has_status(one, params.get("status"))
            and (clocks_too or one["test_clock"] is None)
            and is_within(one["created"], params.get("created", {}))
            and ("price" not in params or params["price"] in (i["price"] for i in one["items"]))
        ]
        return page(found, _URL, "subscription", params)

    def products_of(self, customer: str) -> list[str]:
        """Return the products that a customer pays for, those of the oldest subscription first."""
        return [
            self._prices.objects.get(item["price"])["product"]
            for one in reversed([*self._kept.newest_first()])
            if one["customer"] == customer and one["status"] in {"active", "past_due", "trialing"}
            for item in one["items"]
        ]

    def add_item(self, params: dict[str, Any]) -> dict[str, Any]:
        """Add an item to the subscription in ``params``."""
        item = {name: value for name, value in params.items() if name != "subscription"}
        self._kept.get(params["subscription"], "subscription", 400)
        changed = self.update(params["subscription"], {"items": [item]})
        return self.item(self._kept.get(changed["id"])["items"][-1]["id"])

    def update_item(self, id_: str, params: dict[str, Any]) -> dict[str, Any]:
        """Change an item."""
        self.update(self._holder(id_)["id"], {"items": [{"id": id_, **params}]})
        return self.item(id_)

    def delete_item(self, id_: str) -> dict[str, Any]:
        """Remove an item."""
        self.update(self._holder(id_)["id"], {"items": [{"id": id_, "deleted": True}]})
        return {"id": id_, "object": "subscription_item", "deleted": True}

    def item(self, id_: str) -> dict[str, Any]:
        """Return an item; 404 for an unknown id."""
        return self._items.view(next(i for i in self._holder(id_)["items"] if i["id"] == id_))

    def listed_items(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of a subscription's items."""
        one = self._kept.get(params["subscription"], "subscription", 400)
        items = [self._items.view(item) for item in one["items"]]
        return page(items, "/v1/subscription_items", "subscription item", params)

    def settle(self) -> None:
        """Bring all subscriptions to the present, one end of a trial or period after the other."""
        for test_clock in [*self._due]:
            now = self._now(test_clock)
            while (due := self._due[test_clock]) <= now:
                for one in self._of_clock(test_clock):
                    if _next_due(one) <= due:
                        self._pass(one, int(due))
                self._due[test_clock] = min(map(_next_due, self._of_clock(test_clock)))

    def furthest(self, test_clock: str) -> int:
        """Return how far a test clock may be advanced: by two of its subscriptions' intervals.

        Without a subscription these are years.
        """
        now = int(self._now(test_clock))
        recurring = [
            self._prices.objects.get(item["price"])["recurring"]
            for one in self._of_clock(test_clock)
            if one["status"] not in _ENDED
            for item in one["items"]
        ]
        ends = [boundary(now, each["interval"], each["interval_count"], 2) for each in recurring]
        return min(ends, default=boundary(now, "year", 1, 2))

    def forget_clock(self, test_clock: str) -> None:
        """Stop looking at a test clock, whose subscriptions have all ended."""
        self._due.pop(test_clock, None)

    def _of_clock(self, test_clock: str | None) -> list[dict[str, Any]]:
        return [one for one in self._kept.newest_first() if one["test_clock"] == test_clock]

    def _time_of(self, kept: dict[str, Any]) -> int:
        return int(self._now(kept["test_clock"]))

    def _pass(self, before: dict[str, Any], moment: int) -> None:
        if before["cancel_at"] is not None and before["cancel_at"] <= moment:
            self._end(before, moment, "subscription_cycle")
            return
        items = [dict(item) for item in before["items"]]
        subscription = {**before, "items": items}
        over = [item for item in before["items"] if item["current_period_end"] <= moment]
        self._invoice(subscription, over, moment, "subscription_cycle")
        if before["status"] == "trialing" and before["trial_end"] <= moment:
            subscription["status"] = "active"
        for item in items:
            if item["current_period_end"] <= moment:
                item.update(self._items.period(subscription, item["price"], moment))
        self._keep("updated", subscription, before)

    def _end(self, before: dict[str, Any], moment: int, billed: str | None) -> dict[str, Any]:
        """End a subscription, and bill its last period if there is a reason to."""
        canceled_at = before["canceled_at"] or moment
        ended = {**before, "status": "canceled", "canceled_at": canceled_at, "ended_at": moment}
        if billed is not None:
            self._invoice(ended, before["items"], moment, billed)
        return self._keep("deleted", ended, before)

    def _invoice(
        self, subscription: dict[str, Any], items: list[dict[str, Any]], moment: int, reason: str
    ) -> None:
        """Bill items whose period ends; a trial is free."""
        if subscription["trial_end"] is None or subscription["trial_end"] < moment:
            made = self._bill(subscription, items, moment, reason)
            subscription["latest_invoice"] = made or subscription["latest_invoice"]

    def _keep(
        self, kind: str, subscription: dict[str, Any], before: dict[str, Any] | None
    ) -> dict[str, Any]:
        shown_before = None if before is None else self._view(before)
        test_clock = subscription["test_clock"]
        shown = self._view(self._kept.put(subscription, self._now(test_clock)))
        due = self._due.get(test_clock, float("inf"))
        self._due[test_clock] = min(due, _next_due(subscription))
        self._changed(kind, shown, shown_before)
        return shown

    def _set_trial(self, subscription: dict[str, Any], end: int | str, now: int) -> None:
        if end == "now" or (isinstance(end, int) and end <= now):
            subscription |= {"status": "active", "trial_end": now}
            self._anchor(subscription, now)
            return
        start = subscription["trial_start"] or now
        subscription |= {"status": "trialing", "trial_start": start, "trial_end": end}
        subscription["billing_cycle_anchor"] = end
        for item in subscription["items"]:
            item.update(self._items.period(subscription, item["price"], now))

    def _anchor(self, subscription: dict[str, Any], now: int) -> None:
        subscription["billing_cycle_anchor"] = now
        for item in subscription["items"]:
            item.update(self._items.period(subscription, item["price"], now))
            item["current_period_start"] = now

    def _set_cancellation(
        self, subscription: dict[str, Any], params: dict[str, Any], now: int
    ) -> None:
        ends = [item["current_period_end"] for item in subscription["items"]]
        at_period_end, wanted = params.get("cancel_at_period_end"), params.get("cancel_at")
        if at_period_end and wanted is not None:
            raise invalid_parameter(
                "cancel_at", "You cannot set both cancel_at and cancel_at_period_end."
            )
        if at_period_end or wanted == "max_period_end":
            moment: int | None = max(ends)
        elif wanted == "min_period_end":
            moment = min(ends)
        elif at_period_end is False or "cancel_at" in params:
            moment = wanted
        else:
            return
        if moment is not None and moment <= now:
            raise refused("cancel_at must be in the future.", "cancel_at")
        subscription |= {
            "cancel_at": moment,
            "cancel_at_period_end": bool(at_period_end),
            "canceled_at": None if moment is None else now,
        }

    def _holder(self, item_id: str) -> dict[str, Any]:
        for one in self._kept.newest_first():
            if any(item["id"] == item_id for item in one["items"]):
                return one
        raise no_such("subscription_item", item_id)

    def _view(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return a subscription as answers show it: with its first items alone."""
        items = [self._items.view(item) for item in kept["items"]]
        url = f"/v1/subscription_items?subscription={kept['id']}"
        first, more = items[:DEFAULT_LIMIT], len(items) > DEFAULT_LIMIT
        listed = {"object": "list", "data": first, "has_more": more, "url": url}
        return {**kept, "items": listed}


def _next_due(kept: dict[str, Any]) -> float:
    """Return when the subscription changes by itself."""
    if kept["status"] in _ENDED:
        return float("inf")
    ends = [item["current_period_end"] for item in kept["items"]]
    trial_end = kept["trial_end"] if kept["status"] == "trialing" else None
    return float(min(end for end in (*ends, kept["cancel_at"], trial_end) if end is not None))


def _trial_end(params: dict[str, Any], now: int) -> int | None:
    days, end = params.get("trial_period_days"), params.get("trial_end")
    if days is not None and end is not None:
        raise invalid_parameter("trial_end", "You can't set both trial_end and trial_period_days.")
    if days is not None:
        return now + int(days) * _DAY
    return end if isinstance(end, int) and end > now else None


def _has_status(kept: dict[str, Any], wanted: str | None) -> bool:
    if wanted is None:
        return bool(kept["status"] != "canceled")
    return wanted in ("all", kept["status"]) or (wanted == "ended" and kept["status"] in _ENDED)
