"""The figure that only the journal knows."""

from datetime import datetime

from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.storage.journal import Journal


async def measure_once(journal: Journal, metrics: ReporterMetrics, now: datetime) -> None:
    """Show how long the oldest unknown outcome has been unknown.

    Raises:
        DatabaseUnavailableError: the figure stays as it was.
    """
    since = await journal.oldest_unknown(now)
    metrics.unknown_for(0.0 if since is None else (now - since).total_seconds())
