"""The ledger: each tool run once, for ever.

An event id is unique by primary key. Facts are inserted and never updated; the database role can
change no column of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, commit_replicated
from nexus_messaging.tracing import worth_a_link
from usage_ingest.metadata import stored_metadata
from usage_ingest.metering import (
    DIGEST_VERSION,
    BillingRules,
    BillingState,
    ToolRun,
    UnknownDigestError,
    digest,
    first_state,
    readings,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool run as the ledger keeps it; ``traceparent`` is what a claim of it will link to.

    ``metadata`` is JSON text, or ``None`` with ``metadata_left_out`` where the run had some that
    can't be kept.
    """

    event: ToolRun
    digest: bytes
    readings: str
    metadata: str | None
    metadata_left_out: bool
    state: BillingState
    traceparent: str | None

    @classmethod
    def of(cls, event: ToolRun, rules: BillingRules, now: datetime) -> "Entry":
        """Assess ``event`` by ``rules`` at the time ``now``."""
        read = readings(event.data, rules)
        state = first_state(event.time, read, now)
        context = worth_a_link(event.traceparent)
        metadata = stored_metadata(event.data.metadata)
        left_out = event.left_out or (event.data.metadata is not None and metadata is None)
        return cls(event, digest(event), json.dumps(read), metadata, left_out, state, context)

    def has_the_meaning_of(self, held: bytes, version: int) -> bool:
        """Whether the row of its id, with the digest ``held``, tells the same fact.

        Raises:
            UnknownDigestError: a later release made that digest.
        """
        return held == digest(self.event, version)


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


@dataclass(frozen=True, slots=True)
class HeldByNewer:
    """A later release recorded this event id, with a digest that this one can't compare."""


Result = Recorded | Duplicate | IdTaken | HeldByNewer

INSERT: Final = text("""
INSERT INTO usage_events (
    event_id, source, schema_version, digest, digest_version, user_id, server_id, tool_name,
    origin, status, token_count, metadata, metadata_left_out, readings, occurred_at, traceparent,
    billing_state)
SELECT n.event_id, n.source, 1, n.digest, :digest_version, n.user_id, n.server_id, n.tool_name,
       n.origin, n.status, n.token_count, n.metadata::jsonb, n.metadata_left_out,
       n.readings::jsonb, n.occurred_at, n.traceparent,
       CASE WHEN n.state = 'waiting' AND a.user_id IS NOT NULL THEN 'due' ELSE n.state END
  FROM unnest(
         CAST(:event_id AS uuid[]), CAST(:source AS text[]), CAST(:digest AS bytea[]),
         CAST(:user_id AS uuid[]), CAST(:server_id AS text[]), CAST(:tool_name AS text[]),
         CAST(:origin AS text[]), CAST(:status AS text[]), CAST(:token_count AS bigint[]),
         CAST(:metadata AS text[]), CAST(:metadata_left_out AS boolean[]),
         CAST(:readings AS text[]), CAST(:occurred_at AS timestamptz[]),
         CAST(:traceparent AS text[]), CAST(:state AS text[]))
       AS n(event_id, source, digest, user_id, server_id, tool_name, origin, status, token_count,
            metadata, metadata_left_out, readings, occurred_at, traceparent, state)
  LEFT JOIN billing_accounts a USING (user_id)
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, billing_state
""")

HOLDERS: Final = text("""
SELECT event_id, digest, digest_version, source FROM usage_events
 WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")


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
            RowsBusyError: another transaction is recording one of them; none of them was.
            DatabaseUnavailableError: nothing was recorded.
        """
        first: dict[UUID, Entry] = {}
        for entry in entries:
            first.setdefault(entry.event.id, entry)

        async def work(connection: AsyncConnection) -> list[Result]:
            rows = await connection.execute(INSERT, _columns(list(first.values())))
            inserted = {row.event_id: BillingState(row.billing_state) for row in rows}
            met = [event_id for event_id in first if event_id not in inserted]
            holders: dict[UUID, Row[Any]] = {}
            if met:
                await commit_replicated(connection)
                found = await connection.execute(HOLDERS, {"ids": met})
                holders = {row.event_id: row for row in found}
            return _results(entries, first, inserted, holders)

        return await self._database.run(work)


def _results(
    entries: Sequence[Entry],
    first: dict[UUID, Entry],
    inserted: dict[UUID, BillingState],
    holders: Mapping[UUID, Row[Any]],
) -> list[Result]:
    results: list[Result] = []
    for entry in entries:
        event_id = entry.event.id
        if event_id in inserted and first[event_id] is entry:
            results.append(Recorded(inserted[event_id]))
            continue
        results.append(_met(entry, first[event_id], holders.get(event_id)))
    return results


def _met(entry: Entry, first: Entry, holder: Row[Any] | None) -> Result:
    """Say what ``entry`` is beside the row of its id, or beside the ``first`` of its batch."""
    if holder is None:
        return Duplicate() if entry.digest == first.digest else IdTaken(first.event.source)
    try:
        same = entry.has_the_meaning_of(holder.digest, holder.digest_version)
    except UnknownDigestError:
        return HeldByNewer()
    return Duplicate() if same else IdTaken(holder.source)


def _columns(entries: Sequence[Entry]) -> dict[str, Any]:
    runs = [(entry, entry.event.data) for entry in entries]
    return {
        "event_id": [entry.event.id for entry in entries],
        "source": [entry.event.source for entry in entries],
        "digest": [entry.digest for entry in entries],
        "digest_version": DIGEST_VERSION,
        "user_id": [run.user_id for _, run in runs],
        "server_id": [run.server_id for _, run in runs],
        "tool_name": [run.tool_name for _, run in runs],
        "origin": [run.origin for _, run in runs],
        "status": [run.status for _, run in runs],
        "token_count": [run.token_count for _, run in runs],
        "metadata": [entry.metadata for entry in entries],
        "metadata_left_out": [entry.metadata_left_out for entry in entries],
        "readings": [entry.readings for entry in entries],
        "occurred_at": [entry.event.time for entry in entries],
        "traceparent": [entry.traceparent for entry in entries],
        "state": [entry.state.value for entry in entries],
    }
