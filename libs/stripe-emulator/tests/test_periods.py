"""Billing periods by the calendar."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_emulator.periods import boundary, period_at

INTERVALS = ["day", "week", "month", "year"]
moments = st.integers(1_600_000_000, 2_200_000_000)


def unix(text: str) -> int:
    """Return a time in UTC as unix seconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("interval", "count", "begins"),
    [
        ("month", 1, ["2026-01-31T10:00", "2026-02-28T10:00", "2026-03-31T10:00"]),
        ("month", 3, ["2026-01-31T10:00", "2026-04-30T10:00", "2026-07-31T10:00"]),
        ("year", 1, ["2024-02-29T10:00", "2025-02-28T10:00", "2026-02-28T10:00"]),
        ("week", 2, ["2026-01-31T10:00", "2026-02-14T10:00", "2026-02-28T10:00"]),
        ("day", 1, ["2026-01-31T10:00", "2026-02-01T10:00", "2026-02-02T10:00"]),
    ],
)
def test_periods_keep_the_day_of_their_anchor(interval: str, count: int, begins: list[str]) -> None:
    """As far as the month has it."""
    expected = [unix(begin) for begin in begins]

    assert [boundary(expected[0], interval, count, n) for n in range(3)] == expected


@given(moments, st.sampled_from(INTERVALS), st.integers(1, 12), moments)
def test_every_moment_is_in_one_period(anchor: int, interval: str, count: int, moment: int) -> None:
    """Also before the anchor; each period ends where the next one begins."""
    start, end = period_at(anchor, interval, count, moment)

    assert start <= moment < end
    assert period_at(anchor, interval, count, end)[0] == end
    assert period_at(anchor, interval, count, start) == (start, end)
    assert period_at(anchor, interval, count, anchor)[0] == anchor
