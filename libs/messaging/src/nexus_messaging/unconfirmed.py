"""Logs unconfirmed copies: one line at the start of an outage and one at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from nexus_messaging.errors import PublishError

log = structlog.get_logger()


class Unconfirmed:
    """The unconfirmed copies of one outage, which ends when all of them are confirmed."""

    def __init__(self) -> None:
        self._copies = 0
        self._waiting = 0
        self._logged = False

    @contextmanager
    def waiting(self, copies: int) -> Iterator[None]:
        """Count ``copies`` during the context; they are confirmed if it exits without an error."""
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
        """Log the outage once, shortly after its start, when all its copies are counted."""
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
