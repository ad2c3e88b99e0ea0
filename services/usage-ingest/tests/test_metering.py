"""What a tool run is billed as."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import Event, ToolExecuted
from usage_ingest.metering import (
    FUTURE_TOLERANCE,
    OLDEST_REPORTABLE,
    BillingRules,
    BillingState,
    ToolRun,
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


@given(age=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=80)))
def test_billable_run_waits_unless_it_is_35_days_old(age: timedelta) -> None:
    """Stripe refuses older runs, so they are recorded and never sent."""
    state = first_state(NOON - age, {"runs": 1}, NOON)

    assert state is (BillingState.EXPIRED if age >= OLDEST_REPORTABLE else BillingState.WAITING)
    assert first_state(NOON - age, {}, NOON) is BillingState.NOT_BILLABLE


@given(ahead=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=1)))
def test_run_more_than_five_minutes_ahead_is_from_the_future(ahead: timedelta) -> None:
    """The tolerance is Stripe's."""
    assert is_from_the_future(NOON + ahead, NOON) is (ahead > FUTURE_TOLERANCE)
