"""Invoices: what was used of a subscription's metered prices, when a period of theirs ends.

An invoice is a draft for an hour or more, and takes usage of its period that comes until it is
final (https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period).
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from stripe_emulator.ids import new_id
from stripe_emulator.invoice_objects import (
    draft,
    finalised,
    line,
    lines_of,
    subscription_of,
    view,
    with_lines,
    with_usage,
)
from stripe_emulator.objects import Objects, matching
from stripe_emulator.pages import page
from stripe_emulator.parameters import CREATED, PAGING, Choice, Parameters, Text, is_within
from stripe_emulator.prices import Prices

_URL = "/v1/invoices"

LIST_INVOICES = Parameters(
    {
        **PAGING,
        "collection_method": Choice(("charge_automatically", "send_invoice")),
        "created": CREATED,
        "customer": Text(),
        "status": Choice(("draft", "open", "paid", "uncollectible", "void")),
        "subscription": Text(),
    }
)
LIST_LINES = Parameters(PAGING)

Usage = Callable[[str, str, tuple[int, int]], Decimal]
"""Returns what a meter has counted by now of a customer's events with times in a period."""


class Invoices:
    """All invoices of the account; ``settle`` makes those final whose time has come."""

    def __init__(
        self,
        prices: Prices,
        usage: Usage,
        now: Callable[[str | None], float],
        grace: Callable[[], float],
    ) -> None:
        self._prices = prices
        self._usage = usage
        self._now = now
        self._grace = grace
        self._kept = Objects("invoice")
        self._drafts: set[str] = set()

    def bill(
        self,
        subscription: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        moment: int,
        reason: str,
    ) -> str | None:
        """Make a draft of items whose period ends at ``moment`` or was to end later.

        Returns its id; None if none of the items has a metered price.
        """
        id_ = new_id("in", 24)
        lines = [
            line(id_, item, price, _period(item, moment))
            for item in items
            if (price := self._prices.objects.get(item["price"]))["recurring"]["meter"]
        ]
        if not lines:
            return None
        made = draft(id_, subscription, reason, moment, moment + int(self._grace()))
        self._keep(self._counted({**made, "lines": lines}))
        self._drafts.add(id_)
        return id_

    def settle(self) -> None:
        """Make the drafts final whose time has come, with what was counted until now."""
        for id_ in [*self._drafts]:
            invoice = self._kept.get(id_)
            if invoice["automatically_finalizes_at"] <= self._now(invoice["test_clock"]):
                self._keep(finalised(self._counted(invoice)))
                self._drafts.discard(id_)

    def forget_clock(self, test_clock: str) -> None:
        """Forget the drafts of a test clock, which are never final."""
        clocks = {id_: self._kept.get(id_)["test_clock"] for id_ in self._drafts}
        self._drafts -= {id_ for id_, clock in clocks.items() if clock == test_clock}

    def get(self, id_: str) -> dict[str, Any]:
        """Return an invoice; 404 for an unknown id."""
        return view(self._kept.get(id_))

    def lines(self, id_: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of an invoice's lines."""
        return lines_of(self._kept.get(id_), params)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of invoices, the newest first."""
        exact = [name for name in ("collection_method", "customer", "status") if name in params]
        found = [
            view(one)
            for one in self._kept.newest_first()
            if matching(one, {name: params[name] for name in exact})
            and params.get("subscription") in (None, subscription_of(one))
            and is_within(one["created"], params.get("created", {}))
        ]
        return page(found, _URL, "invoice", params)

    def _counted(self, invoice: Mapping[str, Any]) -> dict[str, Any]:
        """Return an invoice with what its meters have counted by now."""
        lines = []
        for each in invoice["lines"]:
            price = self._prices.objects.get(each["pricing"]["price_details"]["price"])
            meter, period = price["recurring"]["meter"], each["period"]
            used = self._usage(meter, invoice["customer"], (period["start"], period["end"]))
            lines.append(with_usage(each, price, used))
        return with_lines(invoice, lines)

    def _keep(self, invoice: dict[str, Any]) -> None:
        self._kept.put(invoice, self._now(invoice["test_clock"]))


def _period(item: Mapping[str, Any], moment: int) -> tuple[int, int]:
    """Return the part of an item's period until ``moment`` in which it had its price."""
    start = max(item["current_period_start"], item["priced_at"])
    return start, min(item["current_period_end"], moment)
