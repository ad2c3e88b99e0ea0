"""Windows of usage, and when one may be reported: arithmetic on UTC time. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

MINUTE: Final = 60
DEFAULT_SECONDS: Final = 10

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ALLOWED_LATENESS: Final = timedelta(seconds=1)
"""Time that a window stays open after its end, for events that arrive late."""


def window_seconds(seconds: int) -> int:
    """Return ``seconds`` if windows may have that length.

    Raises:
        ValueError: some window would span two minutes.
    """
    if seconds and (seconds < 0 or MINUTE % seconds):
        raise ValueError("must be 0 (no windows) or divide a minute, so that none spans two")
    return seconds


def bounds(moment: datetime, window: timedelta) -> tuple[datetime, datetime]:
    """Return the begin of the window that holds ``moment``, and its end, which is outside of it.

    Without windows, of length zero, that is the one microsecond of the moment.
    """
    if not window:
        return moment, moment + timedelta(microseconds=1)
    begin = EPOCH + (moment - EPOCH) // window * window
    return begin, begin + window


def closed_before(now: datetime, window: timedelta) -> datetime:
    """Return the moment before which every window of length ``window`` is closed.

    Windows are aligned to the epoch; a length that divides a minute keeps each of them within one
    UTC minute. A length of zero means no windows: every event that has happened may be reported.
    """
    if not window:
        return now + timedelta(days=1)
    elapsed = now - ALLOWED_LATENESS - EPOCH
    return EPOCH + elapsed // window * window


def whole_hour(moment: datetime) -> datetime:
    """Return the beginning of the hour of UTC that ``moment`` is in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
