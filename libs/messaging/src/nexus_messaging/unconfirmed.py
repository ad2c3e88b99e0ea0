"""Copies that the broker has not confirmed: two log lines for an outage, however many they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from nexus_messaging.errors import PublishError

log = structlog.get_logger()


class Unconfirmed:
    """The copies of one outage: it begins with the first of them and ends when none is left."""

    def __init__(self) -> None:
        self._copies = 0
        self._waiting = 0
        self._logged = False

    @contextmanager
    def waiting(self, copies: int) -> Iterator[None]:
        """Count ``copies`` while the context lasts; they are confirmed if it ends without error."""
        self._copies += copies
        self._waiting += copies
        try:
            yield
        except BaseException:
            self._copies -= copies
            raise
        finally:
            self._waiting -= copies
            if not self._waiting:
                self._end()

    def log_once(self, cause: PublishError) -> None:
        """Log the outage, unless that was done: a moment after it began, when all are counted."""
        if not self._logged:
            self._logged = True
            log.warning(
                "copies_not_confirmed",
                copies=self._copies,
                cause=f"{type(cause).__name__}: {cause}",
            )

    def _end(self) -> None:
        if self._logged and self._copies:
            log.info("copies_confirmed", copies=self._copies)
        self._copies, self._logged = 0, False
