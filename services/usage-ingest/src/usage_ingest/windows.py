"""Windows of usage, and when one may be reported: pure arithmetic on UTC time."""

from datetime import UTC, datetime, timedelta
from typing import Final

MINUTE: Final = 60
DEFAULT_SECONDS: Final = 10

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

STRAGGLERS: Final = timedelta(seconds=1)
"""How long a window stays open after its end, for events still on their way."""


def fits_a_minute(seconds: int) -> int:
    """Return ``seconds`` if they may be the length of a window.

    Raises:
        ValueError: some window would span two minutes.
    """
    if seconds and (seconds < 0 or MINUTE % seconds):
        raise ValueError("must be 0 (no windows) or divide a minute, so that none spans two")
    return seconds


def bounds(moment: datetime, window: timedelta) -> tuple[datetime, datetime]:
    """Return where the window that ``moment`` lies in begins, and where the next one does.

    Without windows that is the moment alone, to the microsecond.
    """
    if not window:
        return moment, moment + timedelta(microseconds=1)
    begin = EPOCH + (moment - EPOCH) // window * window
    return begin, begin + window


def closed_before(now: datetime, window: timedelta) -> datetime:
    """Return the moment before which every window of length ``window`` has closed.

    Windows are aligned to the epoch; lengths that divide a minute keep each within one UTC
    minute. A length of zero means no windows: every event that has happened may be reported.
    """
    if not window:
        return now + timedelta(days=1)
    elapsed = now - STRAGGLERS - EPOCH
    return EPOCH + elapsed // window * window
