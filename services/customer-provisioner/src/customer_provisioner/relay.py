"""Publishes ``customer.provisioned``: each new customer once, and stored ones again on request."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import announcement
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.writer import ProfileWriter
from nexus_messaging.errors import PublishError
from nexus_messaging.outage_log import OutageLog
from nexus_messaging.outgoing import OutgoingEvent, send
from nexus_messaging.publisher import Publisher
from nexus_service.console import Steps

BATCH_SIZE: Final = 100
"""Customers that one round publishes, or one page reads."""

BEFORE_FIRST_USER: Final = UUID(int=0)

log = structlog.get_logger()


class Relay:
    """Publishes the customers that are not announced yet, until the broker confirms them.

    Two relays may publish one customer twice: the event is the same except for its trace, and
    consumers apply only a higher generation.
    """

    def __init__(
        self,
        reader: ProfileReader,
        writer: ProfileWriter,
        publisher: Publisher,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._publisher = publisher
        self._metrics = metrics
        self._now = now
        self._outage = OutageLog(_log_failure, _log_recovery)

    async def publish_unannounced(self) -> bool:
        """Do one round: publish up to ``BATCH_SIZE`` customers, and mark those confirmed.

        Returns:
            Whether there may be more to publish at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        waiting = await self._reader.unannounced(BATCH_SIZE)
        sendings = [OutgoingEvent(announcement(each), parent=each.traceparent) for each in waiting]
        errors = await self._publisher.publish_all([each.publication for each in sendings])
        for sending, error in zip(sendings, errors, strict=True):
            sending.end(error)
        confirmed = [each for each, error in zip(waiting, errors, strict=True) if error is None]
        self._outage.round(errors)
        if not confirmed:
            return False
        marked = await self._writer.mark_announced(confirmed, self._now())
        self._metrics.announced(len(confirmed))
        return marked == BATCH_SIZE


def _log_failure(errors: Sequence[PublishError]) -> None:
    cause = type(errors[0]).__name__
    log.warning("announcements_not_confirmed", customers=len(errors), cause=cause)


def _log_recovery(failed: int) -> None:
    log.info("announcements_confirmed_again", failed=failed)


async def publish_again(
    since: datetime,
    reader: ProfileReader,
    publisher: Publisher | None,
    *,
    per_second: float,
    progress: Steps,
) -> int:
    """Publish every customer again that was provisioned or announced since a time.

    For a consumer that was restored from an older backup. The events are the same as before, so
    that a repetition is harmless. Without a publisher the customers are only counted.

    Returns:
        The number of customers.

    Raises:
        PublishError: the broker did not confirm an event; run it again.
        DatabaseUnavailableError: the database can't be used.
    """
    count, after = 0, BEFORE_FIRST_USER
    while page := await reader.provisioned_since(since, after, BATCH_SIZE):
        for profile in page:
            if publisher is not None:
                await send(publisher, announcement(profile), parent=profile.traceparent)
                await asyncio.sleep(1 / per_second)
            progress.advance()
        count += len(page)
        after = page[-1].user_id
    return count
