"""The figures that only the database knows."""

from datetime import datetime

from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.storage.journal import Journal
from stripe_reporter.storage.rejections import Rejections
from stripe_reporter.storage.summaries import Summaries


async def measure_once(
    journal: Journal,
    rejections: Rejections,
    summaries: Summaries,
    metrics: ReporterMetrics,
    now: datetime,
) -> None:
    """Show for how long outcomes are unknown and rejections unannounced, and which sums are due.

    Raises:
        DatabaseUnavailableError: the figures stay as they were.
    """
    metrics.unknown_for(_seconds(await journal.oldest_unknown(now), now))
    metrics.unannounced_for(_seconds(await rejections.oldest_waiting(now), now))
    backlog = await summaries.backlog(now)
    metrics.sums_due(backlog.due, backlog.overdue)


def _seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
