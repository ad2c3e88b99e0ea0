"""What a tool run is worth, and when two messages are one fact."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import Event, ToolExecuted
from nexus_contracts.fields import EARLIEST
from usage_ingest.metering import (
    DIGEST_VERSION,
    FUTURE_TOLERANCE,
    OLDEST_REPORTABLE,
    BillingRules,
    BillingState,
    ToolRun,
    UnknownDigestError,
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


SHORT = datetime(2038, 6, 10, 22, 9, 31, 345_000, tzinfo=UTC)
"""A time of which a float of seconds falls a millisecond short."""

OLD_DIGESTS = (
    (
        {"time": NOON + timedelta(milliseconds=1)},
        "8815f72a3a10a9b40e3574ff74ba72ed86eaf7592039c0561026e9f59196fc6a",
    ),
    (
        {"tool_name": 'é"\\', "token_count": None, "status": "failed"},
        "d050a1f7947e81afb1c3435152233874e6d47ef02628d60223623185c3e88d01",
    ),
    ({"time": SHORT}, "38e8f934240935e71804b72278de681d1769350917389801a3894ddc9de8a0d3"),
)
"""Made by the release that had no other version."""

MINUTES = st.integers(0, 60 * 24 * 365 * 90)


@given(minutes=MINUTES, milliseconds=st.integers(0, 59_999), below=st.integers(0, 999))
def test_digits_below_the_millisecond_change_no_digest_in_any_year(
    minutes: int, milliseconds: int, below: int
) -> None:
    """From 1970 to 2060: a float of seconds is short of every fourth in 2038."""
    whole = EARLIEST + timedelta(minutes=minutes, milliseconds=milliseconds)

    assert digest(run(whole)) == digest(run(whole + timedelta(microseconds=below)))
    assert digest(run(whole)) != digest(run(whole + timedelta(milliseconds=1)))


@pytest.mark.parametrize(("event_fields", "old"), OLD_DIGESTS)
def test_a_digest_of_the_first_version_is_what_it_was(
    event_fields: dict[str, Any], old: str
) -> None:
    """Those are in ledgers for ever, and old events may come again as long."""
    assert digest(run(**event_fields), 1).hex() == old


def test_the_first_version_lets_lost_microseconds_make_another_fact_in_2038() -> None:
    """Why there is a second one; today's events have the same digest in both."""
    whole, exact = run(SHORT), run(SHORT + timedelta(microseconds=999))

    assert digest(whole, 1) != digest(exact, 1)
    assert digest(whole, 2) == digest(exact, 2)
    assert digest(run(), 1) == digest(run(), 2)


def test_a_version_that_a_later_release_made_is_told_apart() -> None:
    """Nobody here can compare by it, so nothing may be said of the event."""
    with pytest.raises(UnknownDigestError):
        digest(run(), DIGEST_VERSION + 1)


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
