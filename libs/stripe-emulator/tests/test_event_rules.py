"""The rules of meter events and their sums, without a server and with a clock of one's own."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_emulator.errors import StripeError
from stripe_emulator.events import (
    MeterEvent,
    MeterEvents,
    require_timely,
    significant_digits,
    value_of,
)
from stripe_emulator.meters import Meter
from stripe_emulator.summaries import aggregate, list_summaries

DAY = 86400
NOW = 1_800_000_000
SUM = Meter("mtr_1", "runs", "Runs", "sum", "stripe_customer_id", "value", None, NOW, NOW)


def event(
    identifier: str = "i", value: int = 1, at: float = NOW, timestamp: int = NOW
) -> MeterEvent:
    """Make an event of the summing meter."""
    return MeterEvent(identifier, "runs", "mtr_1", "cus_1", Decimal(value), timestamp, at, {})


def take(events: MeterEvents, one: MeterEvent) -> None:
    """Accept an event and count it, as the account does with most."""
    events.accept(one)
    events.count(one)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, DAY // 2)), max_size=30))
def test_an_identifier_is_accepted_once_in_any_24_hours(steps: list[tuple[str, int]]) -> None:
    """However events follow each other, two of one identifier are 24 hours apart or more."""
    events, now, accepted = MeterEvents(), float(NOW), defaultdict[str, list[float]](list)

    for identifier, pause in steps:
        now += pause
        last = accepted[identifier][-1] if accepted[identifier] else now - DAY
        try:
            take(events, event(identifier, at=now))
        except StripeError:
            assert now - last < DAY
        else:
            assert now - last >= DAY
            accepted[identifier].append(now)

    assert len(events.of("mtr_1", "cus_1")) == sum(map(len, accepted.values()))


def test_the_same_event_is_counted_twice_after_24_hours() -> None:
    """What Stripe no longer remembers it counts again: the reason to remember for longer."""
    events = MeterEvents()
    take(events, event("i", value=5))

    with pytest.raises(StripeError, match="An event already exists with identifier i"):
        take(events, event("i", value=5, at=NOW + DAY - 1))
    take(events, event("i", value=5, at=NOW + DAY))

    assert aggregate(SUM, events.of("mtr_1", "cus_1")) == 10


@pytest.mark.parametrize(("last", "beyond"), [(-35 * DAY, -35 * DAY - 1), (300, 301)])
def test_an_event_lies_within_35_days_and_5_minutes(last: int, beyond: int) -> None:
    """Both limits belong to the allowed range."""
    require_timely(NOW + last, NOW)

    with pytest.raises(StripeError):
        require_timely(NOW + beyond, NOW)


@pytest.mark.parametrize(
    ("written", "digits"),
    [("0", 1), ("7", 1), ("-0012.50", 4), ("123456789012345", 15), ("1000000000000000", 16)],
)
def test_significant_digits_begin_after_leading_zeros(written: str, digits: int) -> None:
    """Sign, point and leading zeros are no digits."""
    assert significant_digits(written) == digits


@pytest.mark.parametrize("written", ["", "1e3", "1.", ".5", "NaN", " 1", "1,5", "٣", "9" * 16])
def test_a_value_is_a_plain_number_of_15_digits(written: str) -> None:
    """Anything else is refused, and the refusal names the payload key."""
    with pytest.raises(StripeError) as refusal:
        value_of(SUM, {"value": written})

    assert refusal.value.error["param"] == "payload[value]"


def test_a_counting_meter_needs_no_value() -> None:
    """Where events are only counted a payload without value is fine."""
    assert value_of(replace(SUM, formula="count"), {}) == 1


@pytest.mark.parametrize(("formula", "expected"), [("sum", 9), ("count", 3), ("last", 2)])
def test_values_add_up_by_the_meters_formula(formula: str, expected: int) -> None:
    """``last`` goes by the events' own time, not by their arrival."""
    events = [
        event("a", 4, timestamp=NOW),
        event("b", 2, timestamp=NOW + 9),
        event("c", 3, timestamp=NOW),
    ]

    assert aggregate(replace(SUM, formula=formula), events) == expected


def test_in_an_event_time_window_the_newest_arrival_replaces_the_others() -> None:
    """Values that are totals of their hour already do not add up within it."""
    hour = NOW // 3600 * 3600
    events = [
        event("a", 4, timestamp=hour),
        event("b", 7, timestamp=hour + 10),
        event("c", 1, timestamp=hour + 3600),
    ]

    assert aggregate(replace(SUM, event_time_window="hour"), events) == 8


@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY - 1), st.integers(-50, 50)), max_size=40),
    st.sampled_from(["hour", "day", None]),
)
def test_summaries_of_any_grouping_have_the_sum_of_their_events(
    points: list[tuple[int, int]], grouping: str | None
) -> None:
    """However a range is cut into windows and pages, its summaries add up to its events."""
    start = NOW // DAY * DAY
    events = [event(str(i), value, timestamp=start + at) for i, (at, value) in enumerate(points)]
    params: Any = {
        "customer": "cus_1",
        "start_time": start,
        "end_time": start + 2 * DAY,
        "limit": 7,
    }
    if grouping is not None:
        params["value_grouping_window"] = grouping

    pages = [list_summaries(SUM, "cus_1", events, params)]
    while pages[-1]["has_more"]:
        cursor = pages[-1]["data"][-1]["id"]
        pages.append(list_summaries(SUM, "cus_1", events, {**params, "starting_after": cursor}))

    total = sum(one["aggregated_value"] for page in pages for one in page["data"])
    assert total == sum(value for at, value in points if at < 2 * DAY)


def test_a_cancelled_event_counts_no_more_and_keeps_its_identifier() -> None:
    """Cancelling takes the value back within 24 hours, once, and frees nothing."""
    events = MeterEvents()
    take(events, event("i"))

    events.cancel("runs", "i", NOW + DAY - 1)

    assert events.of("mtr_1", "cus_1") == []
    with pytest.raises(StripeError, match="already exists"):
        take(events, event("i", at=NOW + 60))
    with pytest.raises(StripeError, match="can be cancelled"):
        events.cancel("runs", "i", NOW + 60)


def test_an_event_cannot_be_cancelled_after_24_hours() -> None:
    """Later than a day after its receipt an event stays as it is."""
    events = MeterEvents()
    take(events, event("i"))

    with pytest.raises(StripeError, match="can be cancelled"):
        events.cancel("runs", "i", NOW + DAY)

    assert len(events.of("mtr_1", "cus_1")) == 1
