"""When windows of usage close."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from usage_ingest.windows import ALLOWED_LATENESS, closed_before

MOMENTS = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)
LENGTHS = st.sampled_from([1, 2, 5, 10, 15, 30, 60]).map(lambda s: timedelta(seconds=s))


@given(now=MOMENTS, window=LENGTHS)
def test_window_closes_after_its_allowed_lateness(now: datetime, window: timedelta) -> None:
    """The boundary is an end of a window, at least the allowed lateness before now."""
    boundary = closed_before(now, window)

    assert boundary.timestamp() % window.total_seconds() == 0
    assert ALLOWED_LATENESS <= now - boundary < ALLOWED_LATENESS + window


@given(now=MOMENTS, later=st.timedeltas(timedelta(0), timedelta(days=9)), window=LENGTHS)
def test_closed_window_never_opens_again(
    now: datetime, later: timedelta, window: timedelta
) -> None:
    """The boundary only moves forward."""
    assert closed_before(now + later, window) >= closed_before(now, window)


@given(now=MOMENTS)
def test_without_windows_every_event_may_be_reported(now: datetime) -> None:
    """No event waits, not even one that is ahead of our clock by the tolerated minutes."""
    assert closed_before(now, timedelta(0)) > now + timedelta(minutes=5)
