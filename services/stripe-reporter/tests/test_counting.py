"""Which hours are read, and when again."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from stripe_reporter.counting import (
    ALWAYS_READ,
    HOUR,
    PAGE_HOURS,
    READ_FOR,
    Pair,
    next_reading,
    pages,
    whole_hour,
)

NOW: Final = datetime(2026, 3, 31, 12, 34, 56, tzinfo=UTC)


def pair(since: timedelta | None = None, active: timedelta = HOUR) -> Pair:
    """Return a pair whose oldest unread hour and newest answer are so long ago."""
    return Pair("cus_1", "runs", None if since is None else NOW - since, NOW - active)


def test_one_call_reads_the_last_days() -> None:
    """A pair without news costs one call a day."""
    assert list(pages(pair(), NOW)) == [
        (datetime(2026, 3, 27, 13, tzinfo=UTC), datetime(2026, 3, 31, 13, tzinfo=UTC))
    ]


@given(st.none() | st.timedeltas(timedelta(0), timedelta(days=40)))
def test_every_hour_with_news_is_read_once(since: timedelta | None) -> None:
    """However old; the pages leave no hour out, and Stripe lists each in one page of its own."""
    spans = list(pages(pair(since), NOW))

    oldest = min(NOW - ALWAYS_READ + HOUR, NOW if since is None else NOW - since)
    assert spans[0][0] == whole_hour(oldest)
    assert spans[-1][1] == whole_hour(NOW) + HOUR
    assert all(earlier[1] == later[0] for earlier, later in pairwise(spans))
    assert all(timedelta(0) < end - start <= PAGE_HOURS * HOUR for start, end in spans)


def test_a_pair_is_read_each_day_until_stripe_takes_no_more_of_it() -> None:
    """Stripe takes no usage that is older."""
    assert next_reading(pair(active=READ_FOR - HOUR), NOW) == NOW + timedelta(days=1)
    assert next_reading(pair(active=READ_FOR), NOW) is None


def test_hours_are_those_of_utc() -> None:
    """In India the hour begins at half past."""
    india = timezone(timedelta(hours=5, minutes=30))

    assert whole_hour(NOW.astimezone(india)) == datetime(2026, 3, 31, 12, tzinfo=UTC)
