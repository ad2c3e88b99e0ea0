"""The ledger: each tool run once, permanently.

An event id is unique by primary key. Rows are inserted, and the service's role can update nothing
of them but their state and claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, commit_replicated
from usage_ingest.columns import arrays, names, rows, selected
from usage_ingest.entry import COLUMNS, DIGEST_VERSION, Entry, UnknownDigestError
from usage_ingest.metering import BillingState


@dataclass(frozen=True, slots=True)
class Recorded:
    """The event is new, and is in the ledger now."""

    state: BillingState


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same event is in the ledger already."""


@dataclass(frozen=True, slots=True)
class IdTaken:
    """Another event of ``source`` has this id."""

    source: str


@dataclass(frozen=True, slots=True)
class HeldByNewer:
    """A later release recorded this event id, with a digest that this one can't compare."""


Result = Recorded | Duplicate | IdTaken | HeldByNewer

_OF_RUNS: Final = [column for column in COLUMNS if column.name != "billing_state"]

INSERT: Final = text(f"""
INSERT INTO usage_events (schema_version, digest_version, {names(_OF_RUNS)}, billing_state)
SELECT 1, {DIGEST_VERSION}, {selected(_OF_RUNS)},
       CASE WHEN n.billing_state = 'waiting' AND a.user_id IS NOT NULL THEN 'due'
            ELSE n.billing_state END
  FROM {rows(COLUMNS)}
  LEFT JOIN billing_accounts a USING (user_id)
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, billing_state
""")  # noqa: S608 - made of names in this program

HOLDERS: Final = text("""
SELECT event_id, digest, digest_version, source FROM usage_events
 WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")


class Ledger:
    """Records batches of entries, each batch in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entries: Sequence[Entry]) -> list[Result]:
        """Record ``entries`` and return, in their order, what became of each.

        Rows are inserted in the order of their ids: two batches with ids in common wait for each
        other instead of deadlocking. The rows that conflicting ids belong to are read by a second
        statement: the one that met the conflict does not see a row of a transaction that committed
        after it began.

        Raises:
            RowRefusedError: one of the entries can't be stored; none of them was.
            RowsBusyError: another transaction is recording one of them; none of them was.
            DatabaseUnavailableError: nothing was recorded.
        """
        first: dict[UUID, Entry] = {}
        for entry in entries:
            first.setdefault(entry.event.id, entry)

        async def work(connection: AsyncConnection) -> list[Result]:
            inserted = await connection.execute(INSERT, arrays(COLUMNS, first.values()))
            states = {row.event_id: BillingState(row.billing_state) for row in inserted}
            holders: dict[UUID, Row[Any]] = {}
            if met := [event_id for event_id in first if event_id not in states]:
                await commit_replicated(connection)
                found = await connection.execute(HOLDERS, {"ids": met})
                holders = {row.event_id: row for row in found}
            return [
                Recorded(states[entry.event.id])
                if entry.event.id in states and first[entry.event.id] is entry
                else _conflict(entry, first[entry.event.id], holders.get(entry.event.id))
                for entry in entries
            ]

        return await self._database.run(work)


def _conflict(entry: Entry, first: Entry, holder: Row[Any] | None) -> Result:
    """Compare ``entry`` with the row of its id, or with the ``first`` of its id in the batch."""
    if holder is None:
        return Duplicate() if entry.digest == first.digest else IdTaken(first.event.source)
    try:
        same = entry.has_digest(holder.digest, holder.digest_version)
    except UnknownDigestError:
        return HeldByNewer()
    return Duplicate() if same else IdTaken(holder.source)
