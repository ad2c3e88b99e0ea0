"""The ledger: each tool run once, permanently, and its details once beside it.

An event id is unique by primary key. Rows are inserted, and the service's role can update nothing
of them but their state and claim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, commit_replicated
from usage_ingest.columns import arrays, names, rows, selected
from usage_ingest.entry import (
    COLUMNS,
    DETAILS,
    DETAILS_VERSION,
    DIGEST_VERSION,
    Entry,
    EventColumn,
    UnknownDigestError,
    details_digest,
    digest,
)
from usage_ingest.metering import BillingState, ToolRun
from usage_ingest.payers import assigned_at
from usage_ingest.storage.late import keep_costs


@dataclass(frozen=True, slots=True)
class Recorded:
    """The event is new, and is in the ledger now."""

    state: BillingState


@dataclass(frozen=True, slots=True)
class DetailsAdded:
    """The same event was in the ledger without details; now it has those of this one."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same event is in the ledger already, with the same details if this one has any."""


@dataclass(frozen=True, slots=True)
class IdTaken:
    """Another event of ``source`` has this id."""

    source: str


@dataclass(frozen=True, slots=True)
class DetailsTaken:
    """The same event is in the ledger with other details."""


@dataclass(frozen=True, slots=True)
class HeldByNewer:
    """A later release recorded this event id, with a digest that this one can't compare."""


Result = Recorded | DetailsAdded | Duplicate | IdTaken | DetailsTaken | HeldByNewer

_RECORDED: Final = {state.value: Recorded(state) for state in BillingState}

_OF_RUNS: Final = [column for column in COLUMNS if column.name != "billing_state"]

INSERT: Final = text(f"""
INSERT INTO usage_events (digest_version, {names(_OF_RUNS)}, billing_state)
SELECT {DIGEST_VERSION}, {selected(_OF_RUNS)},
       CASE WHEN n.billing_state = 'waiting' AND a.user_id IS NOT NULL THEN 'due'
            ELSE n.billing_state END
  FROM {rows(COLUMNS)}
  {assigned_at("n")}
  LEFT JOIN billing_accounts a ON a.user_id = coalesce(assigned.account_id, n.user_id)
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, billing_state
""")  # noqa: S608 - made of names in this program

HOLDERS: Final = text("""
SELECT event_id, digest, digest_version, source FROM usage_events
 WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")

INSERT_DETAILS: Final = text(f"""
INSERT INTO usage_details (digest_version, {names(DETAILS)})
SELECT {DETAILS_VERSION}, {selected(DETAILS)}
  FROM {rows(DETAILS)}
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id
""")  # noqa: S608 - likewise

DETAILS_HOLDERS: Final = text("""
SELECT d.event_id, d.digest, d.digest_version, e.source
  FROM usage_details d JOIN usage_events e USING (event_id)
 WHERE d.event_id = ANY(CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is stored once for an event id, and the digest by which a repetition is compared."""

    insert: TextClause
    holders: TextClause
    columns: Sequence[EventColumn]
    digest: Callable[[ToolRun, int], bytes]
    newest_digest: Callable[[Entry], bytes]


_EVENTS: Final = _Facts(INSERT, HOLDERS, COLUMNS, digest, attrgetter("digest"))
_DETAILS: Final = _Facts(
    INSERT_DETAILS, DETAILS_HOLDERS, DETAILS, details_digest, attrgetter("details_digest")
)


class Ledger:
    """Records batches of entries, each batch in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entries: Sequence[Entry]) -> list[Result]:
        """Record ``entries`` and return, in their order, what became of each.

        The results are those of recording them one after the other. Events are compared by what
        version 1 says of them. Then details are stored or compared, of those events alone that are
        in the ledger as they are, by this batch or an earlier one.

        Raises:
            RowRefusedError: one of the entries can't be stored; none of them was.
            RowsBusyError: another transaction is recording one of them; none of them was.
            DatabaseUnavailableError: nothing was recorded.
        """

        async def work(connection: AsyncConnection) -> list[Result]:
            results: list[Result] = [
                _RECORDED[each.billing_state] if isinstance(each, Row) else each
                for each in await _keep(connection, _EVENTS, entries)
            ]

            known = [
                place
                for place, result in enumerate(results)
                if entries[place].details_digest and isinstance(result, Recorded | Duplicate)
            ]
            if known:
                kept = await _keep(connection, _DETAILS, [entries[place] for place in known])
                for place, details in zip(known, kept, strict=True):
                    results[place] = _with_details(results[place], details)
            await _keep_costs(connection, entries, results)
            return results

        return await self._database.run(work)


async def _keep_costs(
    connection: AsyncConnection, entries: Sequence[Entry], results: Sequence[Result]
) -> None:
    """Keep by what price the tokens of new runs and of new details were read, or that none is."""
    costed = [
        (entry, result)
        for entry, result in zip(entries, results, strict=True)
        if entry.cost is not None
    ]
    new = [entry for entry, result in costed if isinstance(result, Recorded)]
    late = [entry for entry, result in costed if isinstance(result, DetailsAdded)]
    if new or late:
        await keep_costs(connection, new, late)


_Known = Duplicate | IdTaken | HeldByNewer


async def _keep(
    connection: AsyncConnection, facts: _Facts, entries: Sequence[Entry]
) -> list[Row[Any] | _Known]:
    """Insert what is new of ``facts``; return for each entry its row, or what its id has already.

    Rows are inserted in the order of their ids: two batches with ids in common wait for each other
    instead of deadlocking. The rows that conflicting ids belong to are read by a second statement:
    the one that met the conflict does not see a row of a transaction that committed after it began.
    """
    first: dict[UUID, Entry] = {}
    for entry in entries:
        first.setdefault(entry.event.id, entry)

    inserted = await connection.execute(facts.insert, arrays(facts.columns, first.values()))
    new = {row.event_id: row for row in inserted}
    holders: dict[UUID, Row[Any]] = {}
    if len(new) < len(first):
        await commit_replicated(connection)
        met = [event_id for event_id in first if event_id not in new]
        found = await connection.execute(facts.holders, {"ids": met})
        holders = {row.event_id: row for row in found}
    # The first entry of an id takes its row away from those that repeat it.
    own = [new.pop(entry.event.id, None) for entry in entries]
    return [
        row or _conflict(facts, entry, first[entry.event.id], holders.get(entry.event.id))
        for entry, row in zip(entries, own, strict=True)
    ]


def _conflict(facts: _Facts, entry: Entry, first: Entry, holder: Row[Any] | None) -> _Known:
    """Compare ``entry`` with the row of its id, or with the ``first`` of its id in the batch."""
    if holder is None:
        same = facts.newest_digest(entry) == facts.newest_digest(first)
        return Duplicate() if same else IdTaken(first.event.source)
    try:
        same = facts.digest(entry.event, holder.digest_version) == holder.digest
    except UnknownDigestError:
        return HeldByNewer()
    return Duplicate() if same else IdTaken(holder.source)


def _with_details(event: Result, details: Row[Any] | _Known) -> Result:
    """Return the result of an event that is in the ledger, by what became of its details."""
    if isinstance(event, Recorded):
        return event
    match details:
        case Row():
            return DetailsAdded()
        case IdTaken():
            return DetailsTaken()
        case _:
            return details
