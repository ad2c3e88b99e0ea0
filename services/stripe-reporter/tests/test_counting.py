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
    READ_AGAIN,
    READ_FOR,
    RETRY_AFTER,
    Pair,
    next_reading,
    next_try,
    pages,
    whole_hour,
)

NOW: Final = datetime(2026, 3, 31, 12, 34, 56, tzinfo=UTC)


def pair(
    since: timedelta | None = None,
    active: timedelta = 2 * HOUR,
    wanted: timedelta = timedelta(0),
) -> Pair:
    """Return a pair whose oldest unread hour, newest answer and due time are so long ago."""
    oldest = None if since is None else NOW - since
    return Pair("cus_1", "runs", oldest, NOW - active, NOW - wanted)


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
    assert next_reading(pair(active=READ_FOR - HOUR), NOW, HOUR) == NOW + timedelta(days=1)
    assert next_reading(pair(active=READ_FOR), NOW, HOUR) is None


def test_an_answer_within_stripes_lag_is_read_again_the_same_day() -> None:
    """A reading that an error report asked for comes too early for the newest answer."""
    assert next_reading(pair(active=HOUR / 2), NOW, HOUR) == NOW + READ_AGAIN


def test_what_always_fails_is_tried_less_and_less() -> None:
    """It would take the turns of all others."""
    waits = [next_try(pair(wanted=overdue * HOUR), NOW) - NOW for overdue in (0, 1, 2, 4, 8, 1000)]

    assert waits == [RETRY_AFTER, HOUR, 2 * HOUR, 4 * HOUR, READ_AGAIN, READ_AGAIN]


def test_hours_are_those_of_utc() -> None:
    """In India the hour begins at half past."""
    india = timezone(timedelta(hours=5, minutes=30))

    assert whole_hour(NOW.astimezone(india)) == datetime(2026, 3, 31, 12, tzinfo=UTC)
