"""What only the journal can tell those who watch, asked every few seconds."""

from collections.abc import Callable
from datetime import datetime

from stripe_reporter.journal import Journal
from stripe_reporter.metrics import ReporterMetrics


class Measuring:
    """Shows how long the oldest unknown outcome has been unknown."""

    def __init__(
        self, journal: Journal, metrics: ReporterMetrics, *, now: Callable[[], datetime]
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._now = now

    async def measure(self) -> None:
        """Measure once.

        Raises:
            DatabaseUnavailableError: the figure stays as it was.
        """
        now = self._now()
        since = await self._journal.oldest_unknown(now)
        self._metrics.unknown_for(0.0 if since is None else (now - since).total_seconds())
