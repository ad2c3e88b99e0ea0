"""What a tool run is worth, and when two messages are one fact."""

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
    digest,
    first_state,
    is_from_the_future,
    readings,
)

RULES = BillingRules("runs", "tokens", frozenset({"succeeded"}))
NAMES = st.text(st.sampled_from('ab",[]\\ é'), min_size=1, max_size=4)
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


def test_a_succeeded_run_reads_one_run_and_its_tokens() -> None:
    """Each meter reads its own quantity."""
    assert readings(run().data, RULES) == {"runs": 1, "tokens": 5}


@pytest.mark.parametrize("tokens", [None, 0])
def test_a_meter_that_reads_zero_is_left_out(tokens: int | None) -> None:
    """Stripe is never told of nothing."""
    assert readings(run(token_count=tokens).data, RULES) == {"runs": 1}


def test_a_failed_run_is_billed_only_where_the_rules_say_so() -> None:
    """Which statuses are billable is configuration."""
    everything = BillingRules("runs", None, frozenset({"succeeded", "failed"}))

    assert readings(run(status="failed").data, RULES) == {}
    assert readings(run(status="failed").data, everything) == {"runs": 1}


@given(age=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=80)))
def test_only_billable_runs_younger_than_35_days_wait_to_be_reported(age: timedelta) -> None:
    """Stripe refuses older ones, so they are recorded and never sent."""
    state = first_state(NOON - age, {"runs": 1}, NOON)

    assert state is (BillingState.EXPIRED if age >= OLDEST_REPORTABLE else BillingState.WAITING)
    assert first_state(NOON - age, {}, NOON) is BillingState.NOT_BILLABLE


@given(ahead=st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=1)))
def test_a_run_more_than_five_minutes_ahead_is_from_the_future(ahead: timedelta) -> None:
    """The tolerance is Stripe's own."""
    assert is_from_the_future(NOON + ahead, NOON) is (ahead > FUTURE_TOLERANCE)


def test_metadata_a_new_id_and_lost_microseconds_leave_a_fact_the_same() -> None:
    """The digest is of what is billed, not of the bytes that told it."""
    told = run(NOON + timedelta(microseconds=123_456), metadata={"a": 1})
    again = run(NOON + timedelta(microseconds=123_000), metadata={"b": [2]})

    assert digest(told) == digest(again)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "other/hub"},
        {"user_id": UUID(int=2)},
        {"server_id": "weather2"},
        {"tool_name": "radar"},
        {"origin": "job"},
        {"status": "failed"},
        {"token_count": 6},
        {"token_count": None},
        {"time": NOON + timedelta(milliseconds=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_what_is_billed_is_another_fact(change: dict[str, Any]) -> None:
    """Each part of the meaning counts, down to the millisecond."""
    assert digest(run(**change)) != digest(run())


@given(
    first=st.tuples(NAMES, NAMES),
    second=st.tuples(NAMES, NAMES),
)
def test_fields_cannot_run_into_each_other(first: tuple[str, str], second: tuple[str, str]) -> None:
    """No two pairs of names digest alike by where one ends and the next begins."""
    one = run(server_id=first[0], tool_name=first[1])
    other = run(server_id=second[0], tool_name=second[1])

    assert (digest(one) == digest(other)) is (first == second)
