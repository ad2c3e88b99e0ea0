"""The meters that reports are for, as they must be at Stripe."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from stripe_reporter.reports import CUSTOMER_KEY, VALUE_KEY

DISPLAY_NAME: Final = "Nexus Tool Calls"


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


def fault(event_name: str, active: Sequence[Meter]) -> str | None:
    """Return what is wrong with the meter of ``event_name`` among the ``active`` ones."""
    found = next((each for each in active if each.event_name == event_name), None)
    if found is None:
        return "not found: run 'stripe-reporter meters ensure'"
    wanted = Meter(event_name)
    differences = [
        f"{each.name} is {getattr(found, each.name)!r}, must be {getattr(wanted, each.name)!r}"
        for each in fields(Meter)
        if getattr(found, each.name) != getattr(wanted, each.name)
    ]
    return "; ".join(differences) or None


def display_name(event_name: str, main: str) -> str:
    """Return what people see in Stripe's dashboard; ``main`` is the meter of tool calls."""
    return DISPLAY_NAME if event_name == main else f"{DISPLAY_NAME}: {event_name}"
