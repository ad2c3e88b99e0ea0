"""What a tool run is billed as: what each meter reads for it, and whether it is reported. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from nexus_contracts import Event, ToolExecuted, ToolExecutedV2
from nexus_plans import NoPrice, Plans, Priced, Tokens
from nexus_plans.parts import ROUTE_SIGN

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
"""Stripe takes meter events up to five minutes ahead of its clock."""

MAX_AGE: Final = timedelta(days=35)
"""Stripe takes meter events up to 35 days old."""

ToolRun = Event[ToolExecuted]


class BillingState(StrEnum):
    """Where an event stands between its record and its report."""

    WAITING = "waiting"
    DUE = "due"
    CLAIMED = "claimed"
    NOT_BILLABLE = "not_billable"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class BillingRules:
    """Which runs are billed, and on which meters."""

    runs_meter: str
    tokens_meter: str | None
    billable_statuses: frozenset[str]
    plans: Plans | None = None
    """What decides which runs are counted apart, and what their tokens cost."""

    @property
    def meters(self) -> tuple[str, ...]:
        """Return the meters, and the routes, that a run can have readings of."""
        tokens = [self.tokens_meter] if self.tokens_meter else []
        return (self.runs_meter, *tokens, *self.routes)

    @property
    def routes(self) -> tuple[str, ...]:
        """Return the keys of the routes that the file of plans has."""
        return () if self.plans is None else tuple(ROUTE_SIGN + name for name in self.plans.routes)


def readings(run: ToolExecuted, rules: BillingRules) -> dict[str, int]:
    """Return what is read for this run, without the cost of its tokens.

    A key is a meter, or a route, which the claim turns into a meter by the plan of the account that
    pays: here nobody knows yet who that is. What reads zero is left out.
    """
    if run.status not in rules.billable_statuses:
        return {}
    route = None if rules.plans is None else rules.plans.route_of(run.server_id, run.tool_name)
    read = {rules.runs_meter if route is None else ROUTE_SIGN + route: 1}
    if rules.tokens_meter is not None and run.token_count:
        read[rules.tokens_meter] = run.token_count
    return read


class Cost(NamedTuple):
    """What the tokens of a run cost, or why that is not known, and the key that it is read by."""

    key: str
    priced: Priced | NoPrice

    @property
    def micro_usd(self) -> int:
        """The cost; zero also where it is not known."""
        return self.priced.micro_usd if isinstance(self.priced, Priced) else 0


def cost_of(run: ToolExecuted, occurred_at: datetime, plans: Plans) -> Cost | None:
    """Return what the tokens of a billable run cost.

    Nothing, if no route counts what its tokens cost, or it says nothing of them: it is of version
    1, or has neither model nor tokens by kind.
    """
    if not isinstance(run, ToolExecutedV2):
        return None
    route = plans.priced_route_of(run.server_id, run.tool_name)
    if route is None:
        return None
    tokens = Tokens(run.input_tokens, run.output_tokens, run.cached_tokens)
    if run.model is None and not any(tokens):
        return None
    return Cost(ROUTE_SIGN + route, plans.price_of(run.model, tokens, occurred_at))


def first_state(occurred_at: datetime, read: Mapping[str, int], now: datetime) -> BillingState:
    """Return the state in which an event is recorded if its customer is not known yet."""
    if not read:
        return BillingState.NOT_BILLABLE
    if now - occurred_at >= MAX_AGE:
        return BillingState.EXPIRED
    return BillingState.WAITING


def is_from_the_future(occurred_at: datetime, now: datetime) -> bool:
    """Whether an event is so far ahead of ``now`` that its publisher's clock must be wrong."""
    return occurred_at - now > FUTURE_TOLERANCE
