"""Telling of customers again, for a service that was restored from an older backup."""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.profile import announcement
from nexus_messaging.publisher import Publisher
from nexus_messaging.sending import send
from nexus_service.console import Steps

PAGE: Final = 100
FIRST_ID: Final = UUID(int=0)


class Announcing:
    """Publishes ``customer.provisioned`` again, as it was; repeating it is harmless.

    Without a publisher it only counts. ``progress`` is told of each customer.
    """

    def __init__(
        self,
        inquiries: Inquiries,
        publisher: Publisher | None,
        *,
        per_second: float,
        progress: Steps,
    ) -> None:
        self._inquiries = inquiries
        self._publisher = publisher
        self._pause = 1 / per_second
        self._progress = progress

    async def run(self, since: datetime) -> int:
        """Announce every customer that is, or was announced, since; return how many those are.

        Raises:
            PublishError: the broker did not confirm one; begin again, nothing is lost by it.
            DatabaseUnavailableError: the database can't be used.
        """
        number, after = 0, FIRST_ID
        while page := await self._inquiries.provisioned(since, after, PAGE):
            for profile in page:
                if self._publisher is not None:
                    follows = profile.traceparent
                    await send(self._publisher, announcement(profile), follows=follows)
                    await asyncio.sleep(self._pause)
                self._progress.advance()
            number += len(page)
            after = page[-1].user_id
        return number
