"""What a tool run is billed as."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import Event, ToolExecuted, ToolExecutedV2
from nexus_plans import NoPrice
from nexus_plans.reading import read
from usage_ingest.metering import (
    FUTURE_TOLERANCE,
    MAX_AGE,
    BillingRules,
    BillingState,
    ToolRun,
    cost_of,
    first_state,
    is_from_the_future,
    readings,
)

RULES = BillingRules("runs", "tokens", frozenset({"succeeded"}))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run(time: datetime = NOON, event_id: UUID | None = None, **changes: Any) -> ToolRun:
    """Return one certain tool run, with ``changes``."""
    fields: dict[str, Any] = {
        "user_id": UUID(int=1),
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "hub",
        "status": "succeeded",
        "token_count": 5,
    }
    source = changes.pop("source", "test/hub")
    data = ToolExecuted(**{**fields, **changes})
    return Event.of(data, source=source, id=event_id or uuid4(), time=time)


def test_succeeded_run_reads_one_run_and_its_tokens() -> None:
    """Each meter reads its own quantity."""
    assert readings(run().data, RULES) == {"runs": 1, "tokens": 5}


@pytest.mark.parametrize("tokens", [None, 0])
def test_meter_that_reads_zero_is_left_out(tokens: int | None) -> None:
    """No report of zero is made."""
    assert readings(run(token_count=tokens).data, RULES) == {"runs": 1}


def test_failed_run_is_billed_only_if_the_rules_say_so() -> None:
    """Which statuses are billable is configuration."""
    everything = BillingRules("runs", None, frozenset({"succeeded", "failed"}))

    assert readings(run(status="failed").data, RULES) == {}
    assert readings(run(status="failed").data, everything) == {"runs": 1}


PLANS = read(
    b"""
version: 1
unknown_users: deny
without_subscription: all
default_meter: runs
routes:
  premium: {servers: [browser], tools: ["open*"]}
  tokens: {servers: ["*"], priced: models}
plans: {all: {display_name: All}}
models:
  known:
    cached_tokens: part
    prices: [{from: 2026-01-01, input: 2000000, output: 1000000, cached: 0, source: a list}]
""",
    "plans.yaml",
)
WITH_PLANS = replace(RULES, plans=PLANS)


@pytest.mark.parametrize(
    ("server", "tool", "read"),
    [
        ("browser", "open_page", {"@premium": 1, "tokens": 5}),
        ("browser", "close", {"runs": 1, "tokens": 5}),
        ("weather", "open_page", {"runs": 1, "tokens": 5}),
    ],
)
def test_run_of_a_route_counts_there_instead(server: str, tool: str, read: dict[str, int]) -> None:
    """Its meter is decided by who pays, when it is claimed."""
    assert readings(run(server_id=server, tool_name=tool).data, WITH_PLANS) == read


def test_failed_run_is_on_no_route() -> None:
    """What is not billable reads nothing."""
    assert readings(run(server_id="browser", status="failed").data, WITH_PLANS) == {}


def detailed(**details: Any) -> ToolExecutedV2:
    """Return a run in version 2."""
    return ToolExecutedV2(**run().data.model_dump(), **details)


def test_cost_is_that_of_its_models_tokens() -> None:
    """In micro-USD, under the key of the priced route."""
    cost = cost_of(detailed(model="known", input_tokens=7, output_tokens=3), NOON, PLANS)

    assert cost is not None
    assert (cost.key, cost.micro_usd) == ("@tokens", 17)


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"model": "other", "input_tokens": 1}, "no_price"),
        ({"model": "known"}, "no_tokens"),
        ({"input_tokens": 1}, "no_model"),
    ],
)
def test_unknown_cost_has_a_reason(details: dict[str, Any], reason: str) -> None:
    """It is not zero, though it adds nothing to the readings."""
    cost = cost_of(detailed(**details), NOON, PLANS)

    assert cost is not None
    assert (cost.key, cost.micro_usd) == ("@tokens", 0)
    assert cost.priced == NoPrice(reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [run().data, detailed(), detailed(input_tokens=0)], ids=repr)
def test_run_that_says_nothing_of_tokens_has_no_cost(data: ToolExecuted) -> None:
    """Version 1 cannot, and most tools use no model."""
    assert cost_of(data, NOON, PLANS) is None


@given(age=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=80)))
def test_billable_run_waits_unless_it_is_35_days_old(age: timedelta) -> None:
    """Stripe refuses older runs, so they are recorded and never sent."""
    state = first_state(NOON - age, {"runs": 1}, NOON)

    assert state is (BillingState.EXPIRED if age >= MAX_AGE else BillingState.WAITING)
    assert first_state(NOON - age, {}, NOON) is BillingState.NOT_BILLABLE


@given(ahead=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=1)))
def test_run_more_than_five_minutes_ahead_is_from_the_future(ahead: timedelta) -> None:
    """The tolerance is Stripe's."""
    assert is_from_the_future(NOON + ahead, NOON) is (ahead > FUTURE_TOLERANCE)
