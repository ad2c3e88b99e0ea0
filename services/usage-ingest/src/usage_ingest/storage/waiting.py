"""The runs that wait for a customer, by who is to pay for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from nexus_database import Database
from usage_ingest.payers import assigned_at

MAX_READ: Final = 100_000
"""Waiting runs, the oldest, that are looked at."""

MAX_SOURCES: Final = 5
"""Sources of one user that are named."""

WAITING: Final = text(f"""
WITH oldest AS MATERIALIZED (
    SELECT user_id, occurred_at, source FROM usage_events
     WHERE billing_state = 'waiting' ORDER BY occurred_at LIMIT :most
)
SELECT coalesce(assigned.account_id, e.user_id) AS account_id, e.user_id, count(*) AS runs,
       min(e.occurred_at) AS oldest, max(e.occurred_at) AS newest,
       (array_agg(DISTINCT e.source))[1:{MAX_SOURCES}] AS sources
  FROM oldest e
  {assigned_at("e")}
 GROUP BY 1, 2 ORDER BY oldest, 1, 2
""")  # noqa: S608 - of this project's constants


@dataclass(frozen=True, slots=True)
class WaitingUsage:
    """The runs of a user that wait for their account's customer; ``sources`` published them."""

    account_id: UUID
    user_id: UUID
    runs: int
    oldest: datetime
    newest: datetime
    sources: tuple[str, ...]


async def read_waiting(database: Database) -> Sequence[WaitingUsage]:
    """Return who waits, the longest first; of at most ``MAX_READ`` runs.

    Raises:
        DatabaseUnavailableError: the database can't be used.
    """
    found = await database.run(lambda c: c.execute(WAITING, {"most": MAX_READ}))
    return [
        WaitingUsage(
            row.account_id, row.user_id, row.runs, row.oldest, row.newest, tuple(row.sources)
        )
        for row in found
    ]
