"""What the readings of a run are charged as by its account's plan. Pure.

A reading has a key, decided when the run was recorded, from the run alone: a meter's name, or a
route, which begins with ``@``. A meter's name stays as it is. A route is turned into a meter by the
claim, by the plan that the account had when the run ended.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Final

from nexus_plans import Charge, Plans
from nexus_plans.parts import ROUTE_SIGN

NO_PLAN: Final = ""
"""The name under which the statement finds what holds without a plan."""

Charges = Mapping[str | None, Mapping[str, Charge]]
"""What each route is charged as, by plan; ``None`` is no plan."""

UniqueMeters = Mapping[str | None, str | None]
"""By plan, the meter of unique tools, or ``None``: it counts none."""


def unique_parameter(meters: UniqueMeters) -> str | None:
    """Return ``meters`` as the claim's statement reads them; ``None`` if no plan has one."""
    if not any(meters.values()):
        return None
    return json.dumps({NO_PLAN if plan is None else plan: of for plan, of in meters.items()})


def is_route(key: str) -> bool:
    """Whether a reading's key is a route, and no meter's name."""
    return key.startswith(ROUTE_SIGN)


def charge_of(key: str, routes: Mapping[str, Charge]) -> Charge | None:
    """Return what readings with a key are charged as by a plan's ``routes``; ``None``: nothing."""
    return routes.get(key) if is_route(key) else Charge(key)


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


def best_of(plans: Plans | None) -> Callable[[Collection[str]], str]:
    """Return what chooses the plan of an account with several running subscriptions.

    Plans that the file does not have count least; of these, and without a file, the last by name.
    """
    if plans is None:
        return max
    return lambda of: plans.best(of) or max(of)
