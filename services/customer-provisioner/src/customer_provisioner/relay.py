"""Telling the other services about customers, until the broker has confirmed that it knows."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import announcement
from customer_provisioner.profiles import Profiles
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_messaging.sending import Sending

MOST: Final = 100

log = structlog.get_logger()


class Relay:
    """Publishes ``customer.provisioned`` for every profile that others do not know yet.

    Two relays may tell of one customer twice: the event is the same but for its trace, and whoever
    applies it takes only a higher generation.
    """

    def __init__(
        self,
        inquiries: Inquiries,
        profiles: Profiles,
        publisher: Publisher,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._inquiries = inquiries
        self._profiles = profiles
        self._publisher = publisher
        self._metrics = metrics
        self._now = now
        self._failed = 0

    async def announce(self) -> bool:
        """Announce up to ``MOST`` customers; tell whether there may be more to announce at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        waiting = await self._inquiries.unannounced(MOST)
        sent = [Sending(announcement(each), follows=each.traceparent) for each in waiting]
        errors = await self._publisher.publish_all([each.publication for each in sent])
        for sending, error in zip(sent, errors, strict=True):
            sending.ended(error)
        confirmed = [each for each, error in zip(waiting, errors, strict=True) if error is None]
        failed = [error for error in errors if error is not None]
        self._log_outage(failed[0] if failed else None, len(failed), len(confirmed))
        marked = 0
        if confirmed:
            marked = await self._profiles.mark_announced(confirmed, self._now())
            self._metrics.announced(len(confirmed))
        return marked == MOST

    def _log_outage(self, cause: PublishError | None, failed: int, confirmed: int) -> None:
        """Log the first round that fails and the first that succeeds again."""
        if cause is not None and not self._failed:
            log.warning("not_announced", customers=failed, cause=type(cause).__name__)
        elif cause is None and confirmed and self._failed:
            log.info("announced_again", failed=self._failed)
        self._failed = self._failed + failed if failed or not confirmed else 0
