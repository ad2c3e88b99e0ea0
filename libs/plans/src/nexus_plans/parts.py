"""Meters, routes and plans, as the file has them. Pure."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from nexus_contracts.fields import MAX_VALUE, MeterName, Text
from nexus_contracts.wording import worded_pattern
from nexus_plans.part import NAME, Name, Part
from nexus_plans.patterns import ANY, Pattern, TextPattern
from nexus_plans.stripe_prices import LookupKey, Price

DENY: Final = "deny"
"""Instead of a plan: nothing is allowed."""

ROUTE_SIGN: Final = "@"
"""A reading's key that begins with it is a route, and any other is a meter."""

RouteKey = Annotated[
    str,
    Field(
        pattern=worded_pattern(
            NAME.replace("^", f"^{ROUTE_SIGN}", 1), "must be @ and the name of a route"
        )
    ),
]

MAX_MARKUP: Final = 300
"""In per cent."""

Patterns = Annotated[tuple[TextPattern, ...], Field(min_length=1)]


class Charge(NamedTuple):
    """The meter that a reading is charged on, and what is added to it in per cent."""

    meter: str
    markup_percent: int = 0


class Meter(Part):
    """A meter at Stripe, by its event name."""

    display_name: Text
    """Its name in Stripe's dashboard and on the usage page."""
    unit: Text = "runs"
    """What it counts."""


class Route(Part):
    """Runs that are counted apart. A run takes the first route of its kind that matches it.

    There are two kinds: what counts as one for each run, in place of the meter of all runs; and,
    with `priced`, what the run's tokens cost, in addition.
    """

    servers: Patterns = (ANY,)
    """Of which servers, by `server_id`."""
    tools: Patterns = (ANY,)
    """Of which of their tools, by `tool_name`."""
    priced: Literal["models"] | None = None
    """`models`: the cost of the run's tokens in micro-USD, by the price table."""
    gated: bool = False
    """Only plans that name the route under `premium` may run what matches."""

    @model_validator(mode="after")
    def _gate_counts_runs(self) -> Self:
        if self.gated and self.priced:
            raise ValueError("must not be gated if it is priced: gate a route that counts runs")
        return self

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """Its servers with its tools, each pair."""
        return tuple(Pattern(server, tool) for server in self.servers for tool in self.tools)


class Limit(Part):
    """How much a plan may use of a meter."""

    name: Name
    meter: MeterName
    """The meter whose usage counts."""
    per: Literal["period"] = "period"
    """The billing period of the account."""
    limit: Annotated[int, Field(ge=0, le=MAX_VALUE)]
    hard: bool = False
    """Runs are refused once it is reached; else it is only shown and announced."""
    servers: Patterns | None = None
    """Which servers' runs a hard limit refuses. Absent: what the plan counts on the meter."""
    tools: Patterns | None = None
    tell_at: tuple[Annotated[int, Field(ge=1, le=100)], ...] = ()
    """Shares of the limit, in per cent, at which `usage.threshold_reached` is published."""

    @field_validator("tell_at")
    @classmethod
    def _ascending(cls, shares: tuple[int, ...]) -> tuple[int, ...]:
        if list(shares) != sorted(set(shares)):
            raise ValueError("must ascend, each share once")
        return shares


class RateLimit(Part):
    """How many runs a user may start in a minute, at each server that matches."""

    servers: Patterns = (ANY,)
    per_minute: Annotated[int, Field(ge=0, le=1_000_000)]


class Plan(Part):
    """A plan, named by `plan_type`."""

    display_name: Text
    features: tuple[Name, ...] = ()
    """What else it allows, for the platform to ask for by name."""
    premium: tuple[Name, ...] = ()
    """The gated routes that it may run."""
    meters: Mapping[RouteKey, MeterName] = {}
    """The meter that each route counts on. A route without one counts on none: it is included."""
    markup_percent: Mapping[RouteKey, Annotated[int, Field(ge=0, le=MAX_MARKUP)]] = {}
    """What is added to a route's readings before they are reported; of a route that counts runs, a
    multiple of 100."""
    unique_tools_meter: MeterName | None = None
    """The meter that counts each tool once in a billing period."""
    limits: tuple[Limit, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    lookup_keys: tuple[LookupKey, ...] = ()
    """Prices that the plan is also found by, beside those below; or give a price or a product the
    metadata `plan_type`."""
    prices: tuple[Price, ...] = ()
    """What `customer-provisioner plans ensure` makes at Stripe."""

    _plan_type: str = PrivateAttr(default="")

    @property
    def plan_type(self) -> str:
        """Its name: its key in the file."""
        return self._plan_type

    @property
    def charges(self) -> Mapping[str, Charge]:
        """What each route's readings are charged on."""
        return {
            key: Charge(meter, self.markup_percent.get(key, 0))
            for key, meter in self.meters.items()
        }
