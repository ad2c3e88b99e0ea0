"""Telling the rest of the platform what became of a report."""

from datetime import datetime

from nexus_contracts import Event, EventData
from nexus_messaging.errors import PublishError, TransientError
from nexus_messaging.publisher import Publisher
from nexus_messaging.reasons import Reason
from nexus_messaging.sending import send
from stripe_reporter.reports import Report, rejected, reported


class Outcomes:
    """Publishes outcomes; each is on disk before the report's message is settled."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def reported(self, report: Report, *, at: datetime, ever_unknown: bool) -> None:
        """Tell that Stripe has counted ``report``.

        Raises:
            TransientError: not confirmed; the journal makes doing it all again harmless.
        """
        await self._publish(reported(report, at=at, ever_unknown=ever_unknown))

    async def rejected(
        self, report: Report, reason: Reason, *, at: datetime, ever_unknown: bool, attempts: int
    ) -> None:
        """Tell that ``report`` was refused, for good unless an operator sends it again.

        Raises:
            TransientError: not confirmed; the journal makes doing it all again harmless.
        """
        event = rejected(report, at=at, reason=reason, ever_unknown=ever_unknown, attempts=attempts)
        await self._publish(event)

    async def _publish(self, event: Event[EventData]) -> None:
        try:
            await send(self._publisher, event)
        except PublishError as error:
            raise TransientError(f"the outcome could not be told: {error}") from None
