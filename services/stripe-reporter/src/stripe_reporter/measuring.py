"""The figures that only the database knows."""

from datetime import datetime

from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.storage.journal import Journal
from stripe_reporter.storage.summaries import Summaries


async def measure_once(
    journal: Journal, summaries: Summaries, metrics: ReporterMetrics, now: datetime
) -> None:
    """Show how long the oldest unknown outcome has been unknown, and which sums are due.

    Raises:
        DatabaseUnavailableError: the figures stay as they were.
    """
    since = await journal.oldest_unknown(now)
    metrics.unknown_for(0.0 if since is None else (now - since).total_seconds())
    backlog = await summaries.backlog(now)
    metrics.sums_due(backlog.due, backlog.overdue)
