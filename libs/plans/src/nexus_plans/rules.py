"""What must agree between the parts of the file. Pure."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from nexus_plans.parts import DENY, ROUTE_SIGN, Limit, Plan
from nexus_plans.patterns import compiled
from nexus_plans.plans import Plans

Place = tuple[str | int, ...]
"""A path of keys and positions, such as ``("plans", "free", "limits", 0)``."""


class Fault(NamedTuple):
    """A rule that the file breaks, and where."""

    place: Place
    rule: str


def faults(plans: Plans) -> Iterator[Fault]:
    """Yield each reference to what the file does not have, and each contradiction."""
    for key in ("unknown_users", "without_subscription"):
        name = getattr(plans, key)
        if name != DENY and name not in plans.plans:
            yield Fault((key,), f"must be `deny` or one of the plans, not {name!r}")
    if DENY in plans.plans:
        yield Fault(("plans", DENY), "must have another name: `deny` means no plan")
    for meter in plans.meter_names:
        if meter.startswith(ROUTE_SIGN):
            yield Fault(("meters", meter), "must not begin with @, as a route does")
    for name, plan in plans.plans.items():
        yield from _faults_of_plan(plans, name, plan)
    yield from _mixed_meters(plans)
    yield from _repeated_keys(plans)
    yield from _taken_names(plans)


def _faults_of_plan(plans: Plans, name: str, plan: Plan) -> Iterator[Fault]:
    place: Place = ("plans", name)
    for number, route in enumerate(plan.premium):
        if route not in plans.routes or not plans.routes[route].gated:
            yield Fault((*place, "premium", number), f"{route!r} is no gated route")
    yield from _faults_of_charges(plans, plan, place)
    if plan.unique_tools_meter is not None:
        yield from _known_meter(plans, plan.unique_tools_meter, (*place, "unique_tools_meter"))
    yield from _faults_of_limits(plans, plan.limits, (*place, "limits"))
    for number, price in enumerate(plan.prices):
        here = (*place, "prices", number)
        if price.product not in plans.products:
            yield Fault((*here, "product"), f"{price.product!r} is none of the products")
        if price.recurring.meter is not None:
            yield from _known_meter(plans, price.recurring.meter, (*here, "recurring", "meter"))


def _faults_of_charges(plans: Plans, plan: Plan, place: Place) -> Iterator[Fault]:
    for key, meter in plan.meters.items():
        if key.removeprefix(ROUTE_SIGN) not in plans.routes:
            yield Fault((*place, "meters", key), "is no route")
        yield from _known_meter(plans, meter, (*place, "meters", key))
    for key in plan.markup_percent.keys() - plan.meters.keys():
        yield Fault((*place, "markup_percent", key), "has no meter in this plan")
    for key, percent in plan.markup_percent.items():
        route = plans.routes.get(key.removeprefix(ROUTE_SIGN))
        if route is not None and route.priced is None and percent % 100:
            # It would be rounded to whole runs in each report: how much depends on the window.
            rule = "must be a multiple of 100: the route counts runs, and has no part of one"
            yield Fault((*place, "markup_percent", key), rule)


def _faults_of_limits(plans: Plans, limits: tuple[Limit, ...], place: Place) -> Iterator[Fault]:
    names = Counter(limit.name for limit in limits)
    for number, limit in enumerate(limits):
        if names[limit.name] > 1:
            yield Fault((*place, number, "name"), f"{limit.name!r} is the name of several limits")
        yield from _known_meter(plans, limit.meter, (*place, number, "meter"))


def _known_meter(plans: Plans, meter: str, place: Place) -> Iterator[Fault]:
    if meter not in plans.meter_names:
        yield Fault(place, f"{meter!r} is neither one of the meters nor the default meter")


def _mixed_meters(plans: Plans) -> Iterator[Fault]:
    """A meter counts one thing: runs, micro-USD, or unique tools. A sum of two means nothing."""
    counts = {plans.default_meter: "runs"}
    for name, plan in plans.plans.items():
        place: Place = ("plans", name)
        uses: list[tuple[Place, str, str]] = []
        for key, meter in plan.meters.items():
            route = plans.routes.get(key.removeprefix(ROUTE_SIGN))
            if route is not None:
                what = "runs" if route.priced is None else "costs"
                uses.append(((*place, "meters", key), meter, what))
        if plan.unique_tools_meter is not None:
            uses.append(((*place, "unique_tools_meter"), plan.unique_tools_meter, "unique tools"))
        for where, meter, what in uses:
            other = counts.setdefault(meter, what)
            if other != what:
                yield Fault(where, f"{meter!r} counts {other}, and can't add {what}")


def _repeated_keys(plans: Plans) -> Iterator[Fault]:
    """A lookup key is one price at Stripe, and names one plan."""
    seen: set[str] = set()
    for name, plan in plans.plans.items():
        keys: list[tuple[Place, str]] = [
            *((("plans", name, "lookup_keys", n), key) for n, key in enumerate(plan.lookup_keys)),
            *(
                (("plans", name, "prices", n, "lookup_key"), price.lookup_key)
                for n, price in enumerate(plan.prices)
            ),
        ]
        for place, key in keys:
            if key in seen:
                yield Fault(place, f"{key!r} is the lookup key of another price, too")
            seen.add(key)


def _taken_names(plans: Plans) -> Iterator[Fault]:
    """A model whose names an earlier one matches would be priced as that, silently.

    What matches a pattern as a text, with its `*`, matches all that the pattern does.
    """
    before: list[tuple[str, re.Pattern[str]]] = []
    for model, described in plans.models.items():
        for number, name in enumerate(described.names):
            taker = next((other for other, names in before if names.fullmatch(name)), None)
            if taker is not None:
                rule = f"{name!r} is {taker!r} by its names: put the narrower model first"
                yield Fault(("models", model, "names", number), rule)
        if described.names:
            before.append((model, compiled(described.names)))
