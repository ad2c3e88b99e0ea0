"""When a window of usage may be reported: pure arithmetic on UTC time."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

STRAGGLERS: Final = timedelta(seconds=1)
"""How long a window stays open after its end, for events still on their way."""


def closed_before(now: datetime, window: timedelta) -> datetime:
    """Return the moment before which every window of length ``window`` has closed.

    Windows are aligned to the epoch; lengths that divide a minute keep each within one UTC
    minute. A length of zero means no windows: every event that has happened may be reported.
    """
    if not window:
        return now + timedelta(days=1)
    elapsed = now - STRAGGLERS - EPOCH
    return EPOCH + elapsed // window * window
