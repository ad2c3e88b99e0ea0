"""Totals by hour: deltas are folded into them, and they are compared with a scan or mended by one.

Triggers of the database append the deltas (migration 0008), and the views `hourly_usage` and
`hourly_amounts` show totals and deltas together. So a fold changes nothing that a reader sees, and
one that dies half-way changes nothing at all.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import WAIT_FOR_LOCKS, Database
from usage_ingest.thresholds import touched

MAX_FOLDED: Final = 50_000
"""Elements of one transaction. More at a time are merged into fewer rows, up to the number of
users and tools; and it must end long before the time limit of a statement."""

PARTS: Final = ("usage", "amounts")

Difference = Mapping[str, Any]
"""A row of which the ledger has other sums than the totals, whose names begin with ``total_``."""

# The row of the part is its lock: one process folds at a time, and the others leave it to that one.
TRY_LOCK: Final = text("""
SELECT part FROM totals_progress WHERE part = :part FOR UPDATE SKIP LOCKED
""")

WAIT_LOCK: Final = text("SELECT part FROM totals_progress WHERE part = :part FOR UPDATE")


def _taken(deltas: str) -> str:
    """Return SQL that removes the oldest deltas, up to ``:most`` elements and one delta more."""
    return f"""
    DELETE FROM {deltas}
     WHERE delta_id IN (
           SELECT delta_id
             FROM (SELECT delta_id, sum(size) OVER (ORDER BY delta_id) - size AS before
                     FROM (SELECT delta_id, size FROM {deltas}
                            ORDER BY delta_id LIMIT :most) oldest) summed
            WHERE before < :most)
    RETURNING *"""  # noqa: S608 - of this project's constants


FOLD_USAGE: Final = text(f"""
WITH taken AS ({_taken("usage_deltas")}
), folded AS (
    INSERT INTO folded_usage AS f (
        user_id, hour, server_id, tool_name, runs, billable_runs, tokens)
    SELECT n.user_id, n.hour, n.server_id, n.tool_name, count(*),
           count(*) FILTER (WHERE n.billable), sum(n.tokens)
      FROM taken t
     CROSS JOIN LATERAL unnest(t.user_id, t.hour, t.server_id, t.tool_name, t.billable, t.tokens)
           AS n(user_id, hour, server_id, tool_name, billable, tokens)
     GROUP BY 1, 2, 3, 4
    ON CONFLICT (user_id, hour, server_id, tool_name) DO UPDATE
       SET runs = f.runs + excluded.runs,
           billable_runs = f.billable_runs + excluded.billable_runs,
           tokens = f.tokens + excluded.tokens
)
SELECT coalesce(sum(size), 0) FROM taken
""")  # noqa: S608 - likewise

FOLD_AMOUNTS: Final = text(f"""
WITH taken AS ({_taken("amount_deltas")}
), sums AS (
    SELECT n.account_id, n.meter, n.hour, sum(n.value) AS value
      FROM taken t
     CROSS JOIN LATERAL unnest(t.account_id, t.meter, t.hour, t.value)
           AS n(account_id, meter, hour, value)
     GROUP BY 1, 2, 3
), folded AS (
    INSERT INTO folded_amounts AS f (account_id, meter, hour, value)
    SELECT account_id, meter, hour, value FROM sums
    ON CONFLICT (account_id, meter, hour) DO UPDATE SET value = f.value + excluded.value
), touched AS ({touched("SELECT * FROM sums WHERE meter = ANY(CAST(:announced AS text[]))")})
SELECT coalesce(sum(size), 0) FROM taken
""")  # noqa: S608 - likewise

# All that was committed when the transaction began is folded. What the ledger had before there were
# totals is not, until they were rebuilt: then `as_of` stays null.
PROGRESS: Final = text("""
UPDATE totals_progress SET as_of = now() WHERE part = :part AND as_of IS NOT NULL
""")

# One statement has one snapshot. A run is in it both as an event and as a part of a total or a
# delta, or it is in neither, so they can be compared while usage is recorded and folded.
DIFFERENT_USAGE: Final = """
SELECT user_id, hour, server_id, tool_name,
       coalesce(s.runs, 0) AS runs, coalesce(t.runs, 0) AS total_runs,
       coalesce(s.billable_runs, 0) AS billable_runs,
       coalesce(t.billable_runs, 0) AS total_billable_runs,
       coalesce(s.tokens, 0) AS tokens, coalesce(t.tokens, 0) AS total_tokens
  FROM (SELECT user_id, date_bin('1 hour', occurred_at, timestamptz 'epoch') AS hour,
               server_id, tool_name, count(*) AS runs,
               count(*) FILTER (WHERE billing_state <> 'not_billable') AS billable_runs,
               coalesce(sum(token_count), 0)::bigint AS tokens
          FROM usage_events
         GROUP BY 1, 2, 3, 4) s
  FULL JOIN hourly_usage t USING (user_id, hour, server_id, tool_name)
 WHERE (coalesce(s.runs, 0), coalesce(s.billable_runs, 0), coalesce(s.tokens, 0))
       <> (coalesce(t.runs, 0), coalesce(t.billable_runs, 0), coalesce(t.tokens, 0))
"""

DIFFERENT_AMOUNTS: Final = """
SELECT account_id, meter, hour, coalesce(s.value, 0) AS value, coalesce(t.value, 0) AS total_value
  FROM (SELECT user_id AS account_id, meter,
               date_bin('1 hour', occurred_at, timestamptz 'epoch') AS hour,
               sum(value)::bigint AS value
          FROM usage_reports
         WHERE state <> 'superseded'
         GROUP BY 1, 2, 3) s
  FULL JOIN hourly_amounts t USING (account_id, meter, hour)
 WHERE coalesce(s.value, 0) <> coalesce(t.value, 0)
"""

DIFFERENT: Final[Mapping[str, TextClause]] = {
    "usage": text(DIFFERENT_USAGE),
    "amounts": text(DIFFERENT_AMOUNTS),
}

# Neither recording nor folding changes a difference between the ledger and what the views show: it
# may be added to the folded totals at any time.
MEND: Final[Mapping[str, TextClause]] = {
    "usage": text(f"""
INSERT INTO folded_usage AS f (user_id, hour, server_id, tool_name, runs, billable_runs, tokens)
SELECT user_id, hour, server_id, tool_name, runs - total_runs, billable_runs - total_billable_runs,
       tokens - total_tokens
  FROM ({DIFFERENT_USAGE}) d
ON CONFLICT (user_id, hour, server_id, tool_name) DO UPDATE
   SET runs = f.runs + excluded.runs,
       billable_runs = f.billable_runs + excluded.billable_runs,
       tokens = f.tokens + excluded.tokens
"""),  # noqa: S608 - likewise
    # Limits are looked at again in the period that runs: what an upgrade adds may be years old.
    "amounts": text(f"""
WITH different AS MATERIALIZED ({DIFFERENT_AMOUNTS}
), touched AS ({touched("SELECT account_id, meter, now() AS hour FROM different")})
INSERT INTO folded_amounts AS f (account_id, meter, hour, value)
SELECT account_id, meter, hour, value - total_value FROM different
ON CONFLICT (account_id, meter, hour) DO UPDATE SET value = f.value + excluded.value
"""),  # noqa: S608 - likewise
}

REBUILT: Final = text("UPDATE totals_progress SET as_of = now() WHERE part = :part")

READ_PROGRESS: Final = text("SELECT part, as_of, now() AS now FROM totals_progress ORDER BY part")

UNLIMITED: Final = text("SET LOCAL statement_timeout = 0")
"""For an operator's command: a scan of all events takes as long as it takes."""


@dataclass(frozen=True, slots=True)
class FoldProgress:
    """Up to which time a part is folded; ``None`` until totals of an older ledger were rebuilt."""

    part: str
    as_of: datetime | None
    now: datetime

    @property
    def age(self) -> float:
        """Seconds since ``as_of`` by the database's clock; infinite if it is not known."""
        return float("inf") if self.as_of is None else (self.now - self.as_of).total_seconds()


class Totals:
    """Folds, compares and mends the totals.

    ``announced_meters`` are those of limits whose thresholds are announced: of what a fold adds to
    these, `touched_amounts` has the account and the meter.
    """

    def __init__(self, database: Database, *, announced_meters: Collection[str] = ()) -> None:
        self._database = database
        self._announced = sorted(announced_meters)

    async def fold(self, *, most: int = MAX_FOLDED) -> bool:
        """Fold up to ``most`` elements of each part; return whether there may be more.

        Any number of processes may call it: a part that another one folds is left out.

        Raises:
            DatabaseUnavailableError: what was not committed is folded later.
        """

        async def usage(connection: AsyncConnection) -> bool:
            return await _fold(connection, "usage", FOLD_USAGE, {"most": most})

        async def amounts(connection: AsyncConnection) -> bool:
            values = {"most": most, "announced": self._announced}
            return await _fold(connection, "amounts", FOLD_AMOUNTS, values)

        more = [await self._database.run(usage), await self._database.run(amounts)]
        return any(more)

    async def progress(self) -> list[FoldProgress]:
        """Return up to which time each part is folded.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        found = await self._database.run(lambda connection: connection.execute(READ_PROGRESS))
        return [FoldProgress(row.part, row.as_of, row.now) for row in found]

    async def compare(self, part: str, show: Callable[[Difference], None]) -> int:
        """Call ``show`` with each difference of the totals from a scan; return their number.

        The server sorts on its disk, and rows are fetched a few at a time.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """

        async def work(connection: AsyncConnection) -> int:
            await connection.execute(UNLIMITED)
            number = 0
            async with connection.stream(DIFFERENT[part]) as found:
                async for row in found:
                    show(row._asdict())
                    number += 1
            return number

        return await self._database.run(work)

    async def rebuild(self, part: str) -> int:
        """Make the totals of ``part`` what a scan of the ledger finds; return the rows mended.

        Usage is recorded meanwhile, and folding waits.

        Raises:
            DatabaseUnavailableError: nothing was changed.
        """

        async def work(connection: AsyncConnection) -> int:
            for prepare in (WAIT_FOR_LOCKS, UNLIMITED):
                await connection.execute(prepare)
            await connection.execute(WAIT_LOCK, {"part": part})
            mended = await connection.execute(MEND[part])
            await connection.execute(REBUILT, {"part": part})
            return mended.rowcount

        return await self._database.run(work)


async def _fold(
    connection: AsyncConnection, part: str, statement: TextClause, values: Mapping[str, Any]
) -> bool:
    if (await connection.execute(TRY_LOCK, {"part": part})).first() is None:
        return False
    folded = (await connection.execute(statement, values)).scalar_one()
    if folded >= values["most"]:
        return True
    await connection.execute(PROGRESS, {"part": part})
    return False
