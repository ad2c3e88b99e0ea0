"""The ledger: each tool run once, for ever.

An event id is unique by primary key. Facts are inserted and never updated; the database role can
change no column of them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, commit_replicated
from nexus_messaging.tracing import worth_a_link
from usage_ingest.metering import (
    BillingRules,
    BillingState,
    ToolRun,
    digest,
    first_state,
    readings,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool run as the ledger keeps it; ``traceparent`` is what a claim of it will link to."""

    event: ToolRun
    digest: bytes
    readings: str
    state: BillingState
    traceparent: str | None

    @classmethod
    def of(cls, event: ToolRun, rules: BillingRules, now: datetime) -> "Entry":
        """Assess ``event`` by ``rules`` at the time ``now``."""
        read = readings(event.data, rules)
        state = first_state(event.time, read, now)
        context = worth_a_link(event.traceparent)
        return cls(event, digest(event), json.dumps(read), state, context)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The event is new and now in the ledger."""

    state: BillingState


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same fact is in the ledger already."""


@dataclass(frozen=True, slots=True)
class IdTaken:
    """Another fact holds this event id; ``source`` is who published it."""

    source: str


Result = Recorded | Duplicate | IdTaken

INSERT: Final = text("""
INSERT INTO usage_events (
    event_id, source, schema_version, digest, user_id, server_id, tool_name, origin, status,
    token_count, metadata, readings, occurred_at, traceparent, billing_state)
SELECT n.event_id, n.source, 1, n.digest, n.user_id, n.server_id, n.tool_name, n.origin, n.status,
       n.token_count, n.metadata::jsonb, n.readings::jsonb, n.occurred_at, n.traceparent,
       CASE WHEN n.state = 'waiting' AND a.user_id IS NOT NULL THEN 'due' ELSE n.state END
  FROM unnest(
         CAST(:event_id AS uuid[]), CAST(:source AS text[]), CAST(:digest AS bytea[]),
         CAST(:user_id AS uuid[]), CAST(:server_id AS text[]), CAST(:tool_name AS text[]),
         CAST(:origin AS text[]), CAST(:status AS text[]), CAST(:token_count AS bigint[]),
         CAST(:metadata AS text[]), CAST(:readings AS text[]), CAST(:occurred_at AS timestamptz[]),
         CAST(:traceparent AS text[]), CAST(:state AS text[]))
       AS n(event_id, source, digest, user_id, server_id, tool_name, origin, status, token_count,
            metadata, readings, occurred_at, traceparent, state)
  LEFT JOIN billing_accounts a USING (user_id)
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, billing_state
""")

HOLDERS: Final = text(
    "SELECT event_id, digest, source FROM usage_events WHERE event_id = ANY(CAST(:ids AS uuid[]))"
)


class Ledger:
    """Records batches of entries, each batch in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entries: Sequence[Entry]) -> list[Result]:
        """Record ``entries`` and say, in their order, what became of each.

        Rows are inserted in the order of their ids, so that two batches with ids in common wait
        for each other instead of deadlocking. Who holds a conflicting id is asked in a second
        statement: the one that met the conflict can't see the row it met.

        Raises:
            RowRefusedError: one of the entries can't be stored; none of them was.
            DatabaseUnavailableError: nothing was recorded.
        """
        first: dict[UUID, Entry] = {}
        for entry in entries:
            first.setdefault(entry.event.id, entry)

        async def work(connection: AsyncConnection) -> list[Result]:
            rows = await connection.execute(INSERT, _columns(list(first.values())))
            inserted = {row.event_id: BillingState(row.billing_state) for row in rows}
            met = [event_id for event_id in first if event_id not in inserted]
            holders = {}
            if met:
                await commit_replicated(connection)
                found = await connection.execute(HOLDERS, {"ids": met})
                holders = {row.event_id: (row.digest, row.source) for row in found}
            return _results(entries, first, inserted, holders)

        return await self._database.run(work)


def _results(
    entries: Sequence[Entry],
    first: dict[UUID, Entry],
    inserted: dict[UUID, BillingState],
    holders: dict[UUID, tuple[bytes, str]],
) -> list[Result]:
    results: list[Result] = []
    for entry in entries:
        event_id = entry.event.id
        if event_id in inserted and first[event_id] is entry:
            results.append(Recorded(inserted[event_id]))
            continue
        held, source = holders.get(event_id, (first[event_id].digest, first[event_id].event.source))
        results.append(Duplicate() if held == entry.digest else IdTaken(source))
    return results


def _columns(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    runs = [(entry, entry.event.data) for entry in entries]
    return {
        "event_id": [entry.event.id for entry in entries],
        "source": [entry.event.source for entry in entries],
        "digest": [entry.digest for entry in entries],
        "user_id": [run.user_id for _, run in runs],
        "server_id": [run.server_id for _, run in runs],
        "tool_name": [run.tool_name for _, run in runs],
        "origin": [run.origin for _, run in runs],
        "status": [run.status for _, run in runs],
        "token_count": [run.token_count for _, run in runs],
        "metadata": [None if run.metadata is None else json.dumps(run.metadata) for _, run in runs],
        "readings": [entry.readings for entry in entries],
        "occurred_at": [entry.event.time for entry in entries],
        "traceparent": [entry.traceparent for entry in entries],
        "state": [entry.state.value for entry in entries],
    }
