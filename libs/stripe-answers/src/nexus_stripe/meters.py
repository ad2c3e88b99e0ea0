"""Meters as they must be at Stripe for reports to be counted. Pure.

Whatever makes meters makes them so, and changes none: Stripe can't change how a meter counts, and
a replacement would split its sums.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"
"""The keys of a meter event's payload that have the customer and the value: Stripe's defaults."""

DISPLAY_NAME: Final = "Nexus Tool Calls"
"""What the meter of all runs is called in Stripe's dashboard."""


@dataclass(frozen=True, slots=True)
class Meter:
    """What decides how Stripe counts events of a name.

    ``time_window``: Stripe keeps only the newest event of each such window, which loses ours.
    """

    event_name: str
    formula: str = "sum"
    customer_key: str = CUSTOMER_KEY
    value_key: str = VALUE_KEY
    time_window: str | None = None

    def creation(self, display_name: str) -> dict[str, Any]:
        """Return the parameters that create it (https://docs.stripe.com/api/billing/meter/create).

        Stripe's default for the time window is none.
        """
        return {
            "display_name": display_name,
            "event_name": self.event_name,
            "default_aggregation": {"formula": self.formula},
            "customer_mapping": {"type": "by_id", "event_payload_key": self.customer_key},
            "value_settings": {"event_payload_key": self.value_key},
        }


def active_meter(event_name: str, active: Iterable[Meter]) -> Meter | None:
    """Return the active meter of an event name; Stripe has one at most."""
    return next((each for each in active if each.event_name == event_name), None)


def differences(found: Meter) -> str | None:
    """Return how a meter at Stripe differs from what it must be, in words."""
    wanted = Meter(found.event_name)
    wrong = [
        f"{each.name} is {getattr(found, each.name)!r}, must be {getattr(wanted, each.name)!r}"
        for each in fields(Meter)
        if getattr(found, each.name) != getattr(wanted, each.name)
    ]
    return "; ".join(wrong) or None
