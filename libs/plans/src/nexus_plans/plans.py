"""The file as a whole, and what it decides. Pure."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from typing_extensions import override

from nexus_contracts.fields import MeterName, Text
from nexus_plans.model_prices import MAX_MICRO_USD, Model, NoPrice, Priced, Tokens, cost
from nexus_plans.part import Name, Part
from nexus_plans.parts import DENY, ROUTE_SIGN, Charge, Limit, Meter, Plan, Route
from nexus_plans.patterns import ANYTHING, Pattern, compiled
from nexus_plans.stripe_prices import Product, ProductId

PLAN_TYPE: Final = "plan_type"
"""The key of the metadata that a price or a product at Stripe names its plan by."""

SEATS: Final = "seats"
"""The key of the metadata that says `true` of a price whose quantity is the number of seats."""

_UNKNOWN: Final = Tokens(None, None, None)

REMEMBERED: Final = 4096
"""Servers with tools, and names of models, whose route or price is kept at hand."""


class Plans(Part):
    """The file."""

    version: Literal[1]
    unknown_users: Name
    """The plan of users the ledger knows nothing of, or `deny`."""
    without_subscription: Name
    """The plan of accounts without a running subscription, or `deny`."""
    default_meter: MeterName = "tool_call_executed"
    """The meter of runs that no route counts, as `STRIPE_METER_EVENT_NAME` has it."""
    meters: Mapping[MeterName, Meter] = {}
    """The other meters at Stripe, by their event names."""
    routes: Mapping[Name, Route] = {}
    """Which runs are counted apart: of each kind the first that matches."""
    plans: Annotated[Mapping[Name, Plan], Field(min_length=1)]
    """By `plan_type`, the least first: of several subscriptions the later plan counts."""
    products: Mapping[ProductId, Product] = {}
    """Products at Stripe, by their ids."""
    models: Mapping[Text, Model] = {}
    """The price table of language models, by name."""

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Give each plan its name."""
        for name, plan in self.plans.items():
            plan._plan_type = name  # noqa: SLF001 - a part of this file learns its own key

    def plan(self, plan_type: str | None, *, known: bool) -> Plan | None:
        """Return the plan of an account; ``None``: it may run nothing.

        Args:
            plan_type: The plan of its running subscription. A plan that the file no longer has
                counts as no subscription.
            known: Whether the ledger knows the user.
        """
        found = None if plan_type is None else self.plans.get(plan_type)
        if found is not None:
            return found
        instead = self.without_subscription if known else self.unknown_users
        return None if instead == DENY else self.plans[instead]

    def charges_money(self, plan_type: str | None, meter: str) -> bool:
        """Whether usage on ``meter`` should be on an invoice, by an account's plan.

        A plan with prices in the file has no others, unless it names more by their lookup keys. One
        with neither may be priced at Stripe by metadata: that can't be known here, and it should.
        An account without a subscription has no such price.

        Args:
            plan_type: The plan of its running subscription, if there is one.
            meter: A meter's event name.
        """
        plan = self.plan(None, known=True) if plan_type is None else self.plans.get(plan_type)
        if plan is None or plan.lookup_keys:
            return True
        if plan.prices:
            return any(price.recurring.meter == meter for price in plan.prices)
        return plan_type is not None

    def best(self, plan_types: Iterable[str | None]) -> str | None:
        """Return the last in the file of some plans; ``None`` if the file has none of them."""
        named = set(plan_types)
        return next((name for name in reversed(list(self.plans)) if name in named), None)

    def plan_of_item(
        self,
        lookup_key: str | None,
        product_metadata: Mapping[str, str],
        price_metadata: Mapping[str, str],
    ) -> str | None:
        """Return the plan that an item of a subscription stands for, if any.

        The price's lookup key decides, then its metadata, then its product's. Metadata that names
        no plan of the file is passed over.
        """
        candidates = (
            None if lookup_key is None else self._by_lookup_key.get(lookup_key),
            price_metadata.get(PLAN_TYPE),
            product_metadata.get(PLAN_TYPE),
        )
        return next((each for each in candidates if each in self.plans), None)

    def seats_price(self, lookup_key: str | None, price_metadata: Mapping[str, str]) -> bool:
        """Whether the quantity of a price is the number of seats.

        A price says so itself once another one has taken over its lookup key.
        """
        return lookup_key in self._seats or price_metadata.get(SEATS) == "true"

    def route_of(self, server_id: str, tool_name: str) -> str | None:
        """Return the route that counts a run, or ``None``: the meter of all runs does."""
        return self._counted(server_id, tool_name)

    def priced_route_of(self, server_id: str, tool_name: str) -> str | None:
        """Return the route that the cost of a run's tokens is counted on, if any."""
        return self._priced(server_id, tool_name)

    def charge(self, plan_type: str | None) -> Mapping[str, Charge]:
        """Return what each route's readings are charged on, for an account of the ledger.

        A route that is not in it is charged on no meter.
        """
        plan = self.plan(plan_type, known=True)
        return {} if plan is None else plan.charges

    def charges(self) -> Mapping[str | None, Mapping[str, Charge]]:
        """Return ``charge`` of every plan, and of accounts without a subscription (``None``)."""
        return {plan_type: self.charge(plan_type) for plan_type in (None, *self.plans)}

    def unique_tools_meters(self) -> Mapping[str | None, str | None]:
        """Return the meter of unique tools of every plan, likewise; ``None``: it counts none."""
        plans = {plan_type: self.plan(plan_type, known=True) for plan_type in (None, *self.plans)}
        return {
            name: None if plan is None else plan.unique_tools_meter for name, plan in plans.items()
        }

    def denied(self, plan: Plan | None) -> tuple[Pattern, ...]:
        """Return what a plan may not run; everything without a plan.

        A gated route denies all that its patterns match, also what an earlier route counts.
        """
        if plan is None:
            return (ANYTHING,)
        gated = (r for name, r in self.routes.items() if r.gated and name not in plan.premium)
        return tuple(dict.fromkeys(pattern for route in gated for pattern in route.patterns))

    def refused_by(self, plan: Plan, limit: Limit) -> tuple[Pattern, ...]:
        """Return which runs ``limit`` refuses once it is reached, if it is hard.

        Without patterns of its own that is what the plan counts on the limit's meter: some routes'
        runs, or all runs.
        """
        if limit.servers is not None or limit.tools is not None:
            servers, tools = limit.servers or (ANYTHING.server_id,), limit.tools or ("*",)
            return tuple(Pattern(server, tool) for server in servers for tool in tools)
        routes = [key for key, meter in plan.meters.items() if meter == limit.meter]
        if not routes or limit.meter in {self.default_meter, plan.unique_tools_meter}:
            return (ANYTHING,)
        counted = (self.routes[key.removeprefix(ROUTE_SIGN)].patterns for key in routes)
        return tuple(dict.fromkeys(pattern for patterns in counted for pattern in patterns))

    def price_of(self, model: str | None, tokens: Tokens, at: datetime) -> Priced | NoPrice:
        """Return what the tokens of a run at the time ``at`` cost, or why that is not known."""
        if model is None:
            return NoPrice("no_model")
        if tokens == _UNKNOWN:
            return NoPrice("no_tokens")
        named = self._model_named(model)
        price = None if named is None else named[1].price_at(at)
        if named is None or price is None:
            return NoPrice("no_price")
        name, of = named
        amount = cost(tokens, price, of.cached_tokens)
        if amount > MAX_MICRO_USD:
            return NoPrice("too_much")
        return Priced(amount, name, of.cached_tokens, price)

    def priced_from(self, model: str) -> datetime | None:
        """Return the first moment that the table has a price of a model for, if it has any."""
        named = self._model_named(model)
        return None if named is None else named[1].prices[0].begins

    @cached_property
    def meter_names(self) -> tuple[str, ...]:
        """The event names of all meters."""
        return tuple(dict.fromkeys((self.default_meter, *self.meters)))

    @cached_property
    def charged_meters(self) -> frozenset[str]:
        """The meters that plans count routes or unique tools on."""
        plans = self.plans.values()
        routes = {meter for plan in plans for meter in plan.meters.values()}
        return frozenset(routes | {p.unique_tools_meter for p in plans if p.unique_tools_meter})

    @cached_property
    def _by_lookup_key(self) -> Mapping[str, str]:
        return {
            key: name
            for name, plan in self.plans.items()
            for key in (*plan.lookup_keys, *(price.lookup_key for price in plan.prices))
        }

    @cached_property
    def _seats(self) -> frozenset[str]:
        prices = (price for plan in self.plans.values() for price in plan.prices)
        return frozenset(price.lookup_key for price in prices if price.seats)

    @cached_property
    def _counted(self) -> "_FindRoute":
        return _routing({n: r for n, r in self.routes.items() if r.priced is None})

    @cached_property
    def _priced(self) -> "_FindRoute":
        return _routing({n: r for n, r in self.routes.items() if r.priced is not None})

    @cached_property
    def _model_named(self) -> Callable[[str], tuple[str, Model] | None]:
        """Return what finds a model by its name in the file, else by the first pattern."""
        patterns = [(name, compiled(m.names)) for name, m in self.models.items() if m.names]

        @lru_cache(maxsize=REMEMBERED)
        def find(model: str) -> tuple[str, Model] | None:
            if model in self.models:
                return model, self.models[model]
            matching = (name for name, pattern in patterns if pattern.fullmatch(model))
            return next(((name, self.models[name]) for name in matching), None)

        return find


_FindRoute = Callable[[str, str], str | None]


def _routing(routes: Mapping[str, Route]) -> _FindRoute:
    """Return what finds the first of some routes that matches a server and a tool."""
    patterns = [(name, compiled(r.servers), compiled(r.tools)) for name, r in routes.items()]

    @lru_cache(maxsize=REMEMBERED)
    def find(server_id: str, tool_name: str) -> str | None:
        matching = (
            name
            for name, servers, tools in patterns
            if servers.fullmatch(server_id) and tools.fullmatch(tool_name)
        )
        return next(matching, None)

    return find
