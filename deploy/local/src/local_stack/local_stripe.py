"""What a platform's customers do at the local Stripe: they subscribe to its plans."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from local_stack.errors import LocalStackError
from local_stack.loopback import fetch

Prices = Mapping[str, int | None]
"""The quantity by a price's lookup key; ``None`` for a price by usage."""

PRO: Final[Prices] = {
    "nexus_pro_monthly": 1,
    "nexus_pro_runs": None,
    "nexus_pro_premium": None,
    "nexus_pro_llm_cost": None,
}
"""The prices of the plan Pro of ``deploy/plans.yaml``."""


def enterprise(seats: int) -> Prices:
    """Return the prices of the plan Enterprise of ``deploy/plans.yaml``, with some seats."""
    return {
        "nexus_enterprise_seats": seats,
        "nexus_enterprise_runs": None,
        "nexus_enterprise_llm_cost": None,
        "nexus_enterprise_unique_tools": None,
    }


class PriceMissingError(LocalStackError):
    """The local Stripe lacks a price that somebody subscribes to."""


class LocalStripe:
    """The local Stripe, called with a key as a platform's backend does."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}

    def subscribe(self, customer: str, prices: Prices) -> str:
        """Subscribe a customer, and return the subscription's id.

        Raises:
            PriceMissingError: If there is no price of a lookup key.
            OSError: If the call is refused.
        """
        items: list[tuple[str, str | int]] = []
        for number, (lookup_key, quantity) in enumerate(prices.items()):
            items.append((f"items[{number}][price]", self._price(lookup_key)))
            if quantity is not None:
                items.append((f"items[{number}][quantity]", quantity))
        body = urlencode([("customer", customer), *items]).encode()
        return str(self._ask("/v1/subscriptions", body)["id"])

    def set_clock(self, now: float) -> None:
        """Set the account's time in unix seconds; it runs on from there."""
        self._ask("/_emulator/clock", json.dumps({"now": now}).encode())

    def reject_later(self, customer: str, code: str) -> None:
        """Accept the next usage of a customer, and report a second later that it is not counted."""
        self._ask("/_emulator/options", json.dumps({"error_report_seconds": 1.0}).encode())
        fault = {"kind": "rejected", "code": code, "customer": customer}
        self._ask("/_emulator/events/faults", json.dumps(fault).encode())

    def end_faults(self) -> None:
        """Let every call succeed from now on."""
        fetch(f"{self._url}/_emulator/faults", method="DELETE")

    def sums(self) -> Mapping[str, Mapping[str, int]]:
        """Return what is counted of each customer, by the meter's event name."""
        sums: dict[str, dict[str, int]] = {}
        for each in self._ask("/_emulator/sums"):
            sums.setdefault(each["customer"], {})[each["event_name"]] = int(each["value"])
        return sums

    def _price(self, lookup_key: str) -> str:
        query = urlencode([("lookup_keys[]", lookup_key)])
        if not (found := self._ask(f"/v1/prices?{query}")["data"]):
            raise PriceMissingError(f"the local Stripe has no price {lookup_key}")
        return str(found[0]["id"])

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        json_body = path.startswith("/_emulator")
        kind = "application/json" if json_body else "application/x-www-form-urlencoded"
        return json.loads(
            fetch(
                self._url + path,
                headers={**self._headers, "Content-Type": kind},
                method="GET" if body is None else "POST",
                body=body,
            )
        )
