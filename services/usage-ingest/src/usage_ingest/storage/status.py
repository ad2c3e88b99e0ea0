"""What `status` adds up: what is unfinished, what was reported, what Stripe said later of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from usage_ingest.periods import Placement
from usage_ingest.status import MAX_REPORTED, MAX_SUMMED, LedgerCounts, StateCount
from usage_ingest.storage.counted import LAST_READING, OPEN_NOW
from usage_ingest.storage.figures import figures
from usage_ingest.storage.periods import NUMBERS
from usage_ingest.stripes_word import MAX_SHOWN, DifferenceCount, PlacementCount, StripesWord

# Most events have the same readings: grouped first, they are taken apart once.
EVENTS: Final = text("""
SELECT e.state, r.meter, sum(e.number)::bigint AS number,
       sum(e.number * r.value::bigint)::bigint AS value, min(e.oldest) AS oldest
  FROM (SELECT state, readings, count(*) AS number, min(occurred_at) AS oldest
          FROM ((SELECT 'waiting' AS state, readings, occurred_at FROM usage_events
                  WHERE billing_state = 'waiting' ORDER BY occurred_at LIMIT :most)
                 UNION ALL
                (SELECT 'due', readings, occurred_at FROM usage_events
                  WHERE billing_state = 'due' ORDER BY occurred_at LIMIT :most)) u
         GROUP BY state, readings) e
 CROSS JOIN LATERAL jsonb_each_text(e.readings) r(meter, value)
 GROUP BY 1, 2 ORDER BY e.state DESC, r.meter
""")

REPORTS: Final = text("""
SELECT state, meter, count(*) AS number, sum(value)::bigint AS value, min(created_at) AS oldest
  FROM ((SELECT 1 AS step, state, meter, value, created_at FROM usage_reports
          WHERE state = 'pending' ORDER BY created_at LIMIT :most)
         UNION ALL
        (SELECT 2, state, meter, value, created_at FROM usage_reports
          WHERE state = 'forwarded' ORDER BY created_at LIMIT :most)
         UNION ALL
        (SELECT 3, state, meter, value, created_at FROM usage_reports
          WHERE state = 'rejected' LIMIT :most)
         UNION ALL
        (SELECT 4, state, meter, value, created_at FROM usage_reports
          WHERE state = 'rejected_later' LIMIT :most)) u
 GROUP BY step, state, meter ORDER BY step, meter
""")

# From an index alone: it contains what is added up here.
REPORTED: Final = text("""
SELECT 'reported' AS state, meter, count(*) AS number, sum(value)::bigint AS value,
       min(answered_at) AS oldest
  FROM (SELECT meter, value, answered_at FROM usage_reports
         WHERE state = 'reported' AND answered_at >= :since
         ORDER BY answered_at DESC LIMIT CAST(:most AS bigint)) r
 GROUP BY meter ORDER BY meter
""")

SHADOW: Final = text("""
SELECT 'shadow' AS state, meter, count(*) AS number, sum(value)::bigint AS value,
       min(created_at) AS oldest
  FROM (SELECT meter, value, created_at FROM usage_reports
         WHERE state = 'shadow' AND created_at >= :since
         ORDER BY created_at DESC LIMIT CAST(:most AS bigint)) r
 GROUP BY meter ORDER BY meter
""")

# The newest rows of each state, each from an index: a run that is recorded is soon in a report.
NEWEST: Final = text("""
SELECT max(created_at) FROM (
  (SELECT created_at FROM usage_events
    WHERE billing_state = 'due' ORDER BY occurred_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_events
    WHERE billing_state = 'waiting' ORDER BY occurred_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'pending' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'forwarded' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'shadow' ORDER BY created_at DESC LIMIT 1)
   UNION ALL
  (SELECT created_at FROM usage_reports WHERE state = 'reported' ORDER BY answered_at DESC LIMIT 1)
) newest
""")


class StatusReader:
    """Adds up what the ledger has, and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self, since: datetime, *, all_reported: bool = False) -> LedgerCounts:
        """Count what is unfinished and what was reported ``since``.

        Every query reads a bounded number of rows, however large the ledger is, unless
        ``all_reported`` are added up.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        newest_only = None if all_reported else MAX_REPORTED

        async def rows(
            connection: AsyncConnection, query: TextClause, **values: object
        ) -> Sequence[RowMapping]:
            return (await connection.execute(query, values)).mappings().all()

        async def work(connection: AsyncConnection) -> LedgerCounts:
            totals = {
                (figure.of, figure.state): figure.number for figure in await figures(connection)
            }
            events = await rows(connection, EVENTS, most=MAX_SUMMED)
            unfinished = await rows(connection, REPORTS, most=MAX_SUMMED)
            reported = await rows(connection, REPORTED, since=since, most=newest_only)
            shadow = await rows(connection, SHADOW, since=since, most=newest_only)
            differences = await rows(connection, OPEN_NOW, most=MAX_SHOWN)
            placed = await rows(connection, NUMBERS, since=since, most=MAX_SHOWN)
            return LedgerCounts(
                since,
                tuple(StateCount.of(row, totals["events", row["state"]]) for row in events),
                (
                    *(StateCount.of(row, totals["reports", row["state"]]) for row in unfinished),
                    *_newest(reported, newest_only),
                    *_newest(shadow, newest_only),
                ),
                (await connection.execute(NEWEST)).scalar_one(),
                StripesWord(
                    tuple(DifferenceCount(**row) for row in differences),
                    tuple(
                        PlacementCount(Placement(row["placement"]), row["number"]) for row in placed
                    ),
                    (await connection.execute(LAST_READING)).scalar_one(),
                ),
            )

        return await self._database.run(work)


def _newest(rows: Sequence[RowMapping], most: int | None) -> list[StateCount]:
    """Return the counts of a finished state, of which at most ``most`` rows were added up."""
    cut = sum(row["number"] for row in rows) == most
    return [StateCount(**row, total=None, more=cut) for row in rows]
