"""Which hours of Stripe's sums are read, and when again. Pure: values in, values out.

Stripe is asked for one customer and meter at a time
(https://docs.stripe.com/api/billing/meter-event-summary/list), a pair here. So many calls are
needed that what changed is read first, and the rest once a day.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

PAGE_HOURS: Final = 96
"""Hours of one call: Stripe lists at most 100 in a page."""

READ_AGAIN: Final = timedelta(hours=6)
"""Between two readings of a pair with new answers."""

RETRY_AFTER: Final = timedelta(minutes=10)
"""From a reading that failed until the next one, at least."""

HEAD_START: Final = timedelta(hours=12)
"""By which pairs with recent answers come before the rest, which has its turn all the same if more
is due than can be read."""

SETTLED_AFTER: Final = DAY
"""From an answer until its hour need be read no more, however old: what Stripe does not show a day
later it has lost."""

ALWAYS_READ: Final = 4 * DAY
"""How far back each reading goes at least: one call."""

READ_FOR: Final = timedelta(days=36)
"""A pair without an answer for so long is read no more; Stripe takes no usage that old."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A customer and meter that is read.

    ``since`` is the oldest time of usage with a recent answer, if there is one, ``active_at`` the
    time of the newest answer, and ``wanted_at`` the time from which on this reading was due.
    """

    stripe_customer_id: str
    meter: str
    since: datetime | None
    active_at: datetime
    wanted_at: datetime


def pages(pair: Pair, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the spans to read of ``pair`` at ``now``, in whole hours, the oldest first."""
    end = whole_hour(now) + HOUR
    start = end - ALWAYS_READ
    if pair.since is not None:
        start = min(start, whole_hour(pair.since))
    while start < end:
        until = min(end, start + PAGE_HOURS * HOUR)
        yield start, until
        start = until


def next_reading(pair: Pair, as_of: datetime, lag: timedelta) -> datetime | None:
    """Return when a pair is due again that was read at ``as_of``, None if it never is.

    ``lag`` is how long Stripe may take to show what it has accepted.
    """
    if pair.active_at > as_of - lag:
        return as_of + READ_AGAIN
    return as_of + DAY if as_of - pair.active_at < READ_FOR else None


def next_try(pair: Pair, now: datetime) -> datetime:
    """Return when a pair whose reading failed is tried again: each time after twice as long.

    Otherwise those that always fail would take the turns of all others.
    """
    return now + min(max(now - pair.wanted_at, RETRY_AFTER), READ_AGAIN)


def whole_hour(moment: datetime) -> datetime:
    """Return the beginning of the hour of UTC that ``moment`` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
