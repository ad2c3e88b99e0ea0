"""The figures that metrics show of the ledger: how much is unfinished, and since when.

They are read every few seconds, so each of them comes from a small partial index, however large the
tables are, and counting ends at a limit.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from usage_ingest.status import MAX_COUNTED

MEASURE: Final = text("""
SELECT 'events' AS of, 'waiting' AS state,
       (SELECT count(*) FROM (SELECT FROM usage_events WHERE billing_state = 'waiting'
                               LIMIT :most) t) AS number,
       (SELECT min(occurred_at) FROM usage_events WHERE billing_state = 'waiting') AS oldest
UNION ALL
SELECT 'events', 'due',
       (SELECT count(*) FROM (SELECT FROM usage_events WHERE billing_state = 'due'
                               LIMIT :most) t),
       (SELECT min(occurred_at) FROM usage_events WHERE billing_state = 'due')
UNION ALL
SELECT 'reports', 'pending',
       (SELECT count(*) FROM (SELECT FROM usage_reports WHERE state = 'pending'
                               LIMIT :most) t),
       (SELECT min(created_at) FROM usage_reports WHERE state = 'pending')
UNION ALL
SELECT 'reports', 'forwarded',
       (SELECT count(*) FROM (SELECT FROM usage_reports WHERE state = 'forwarded'
                               LIMIT :most) t),
       (SELECT min(created_at) FROM usage_reports WHERE state = 'forwarded')
UNION ALL
SELECT 'reports', 'rejected',
       (SELECT count(*) FROM (SELECT FROM usage_reports WHERE state = 'rejected'
                               LIMIT :most) t),
       NULL
UNION ALL
SELECT 'reports', 'rejected_later',
       (SELECT count(*) FROM (SELECT FROM usage_reports WHERE state = 'rejected_later'
                               LIMIT :most) t),
       NULL
UNION ALL
SELECT 'unpriced', 'unpriced',
       (SELECT count(*) FROM (SELECT FROM unpriced_runs WHERE state = 'unpriced'
                               LIMIT :most) t),
       (SELECT min(occurred_at) FROM unpriced_runs WHERE state = 'unpriced')
""")


@dataclass(frozen=True, slots=True)
class Figure:
    """How many events, reports or runs without a price are in ``state``; the time of the oldest."""

    of: str
    state: str
    number: int
    oldest: datetime | None

    def age(self, now: datetime) -> float:
        """Return the age of the oldest in seconds; 0 where there is none."""
        return 0.0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())


class Figures:
    """Reads the figures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def measure(self) -> list[Figure]:
        """Return the figures of all unfinished states.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        return await self._database.run(figures)


async def figures(connection: AsyncConnection) -> list[Figure]:
    """Return the figures of all unfinished states, as a transaction sees them."""
    rows = await connection.execute(MEASURE, {"most": MAX_COUNTED})
    return [Figure(row.of, row.state, row.number, row.oldest) for row in rows]
