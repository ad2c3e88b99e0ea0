"""What the readings of a run are charged as by its account's plan. Pure.

A reading has a key, decided when the run was recorded, from the run alone: a meter's name, or a
route, which begins with ``@``. A meter's name stays as it is. A route is turned into a meter by the
claim, by the plan that the account had when the run ended.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ROUTE: Final = "@"
"""What a route begins with; no meter's name does."""

NO_PLAN: Final = ""
"""The name under which the statement finds what holds without a plan that the file knows."""

MOST_MARKUP: Final = 300
"""In percent. A claim of 20,000 runs of 10,000,000,000 units each is then below the 15 digits that
Stripe takes."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The meter that a route's readings are charged on, and the percentage added to their sum."""

    meter: str
    markup_percent: int = 0

    def __post_init__(self) -> None:
        if not self.meter or self.meter.startswith(ROUTE):
            raise ValueError(f"{self.meter!r} is no meter's name")
        if not 0 <= self.markup_percent <= MOST_MARKUP:
            raise ValueError(f"a markup is 0 to {MOST_MARKUP} percent, not {self.markup_percent}")


Charges = Mapping[str | None, Mapping[str, Charge]]
"""What each route is charged as, by plan; ``None`` is no plan, or one that is not here."""


def is_route(key: str) -> bool:
    """Whether a reading's key is a route, and no meter's name."""
    return key.startswith(ROUTE)


def charged_value(value: int, charge: Charge) -> int:
    """Return a sum with its markup, half a unit rounded up."""
    return (value * (100 + charge.markup_percent) + 50) // 100


def parameter(charges: Charges) -> str | None:
    """Return ``charges`` as the claim's statement reads them; ``None`` if there are none."""
    if not charges:
        return None
    return json.dumps(
        {
            NO_PLAN if plan is None else plan: {
                route: {"meter": charge.meter, "percent": 100 + charge.markup_percent}
                for route, charge in routes.items()
            }
            for plan, routes in charges.items()
        },
        sort_keys=True,
    )
