"""Numbers that rise, and rise past all that a lost database had made."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def next_revision(last: int, now: datetime) -> int:
    """Return a revision above ``last``: the microseconds since 1970, or one more than ``last``.

    A database that was restored does not know the last ones it had made. Time makes the next one
    higher all the same, because it was made later.
    """
    return max(last + 1, (now - _EPOCH) // timedelta(microseconds=1))
