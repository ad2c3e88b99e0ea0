"""Billing periods: where they begin and end, counted from an anchor. Pure.

Months are the calendar's: a period that is anchored on the 31st ends on a shorter month's last day,
and the next one ends on the 31st again
(https://docs.stripe.com/billing/subscriptions/billing-cycle#monthly).
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import count as integers_from
from itertools import pairwise

_DAY_SECONDS = 86400
_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


def boundary(anchor: int, interval: str, count: int, number: int) -> int:
    """Return where period ``number`` begins, 0 being the one at the anchor (unix seconds)."""
    begin = datetime.fromtimestamp(anchor, UTC)
    if interval in _DAYS:
        return int((begin + timedelta(days=_DAYS[interval] * count * number)).timestamp())
    months = begin.month - 1 + _MONTHS[interval] * count * number
    year, month = begin.year + months // 12, months % 12 + 1
    day = min(begin.day, monthrange(year, month)[1])
    return int(begin.replace(year=year, month=month, day=day).timestamp())


def period_at(anchor: int, interval: str, count: int, moment: float) -> tuple[int, int]:
    """Return the period that ``moment`` is in; its start belongs to it, its end does not."""
    # The search begins before it, whether months are as short or as long as they can be.
    days = _DAYS.get(interval) or (31 if moment >= anchor else 28) * _MONTHS[interval]
    first = int((moment - anchor) // (days * _DAY_SECONDS * count)) - 1
    starts = (boundary(anchor, interval, count, number) for number in integers_from(first))
    return next((start, end) for start, end in pairwise(starts) if start <= moment < end)
