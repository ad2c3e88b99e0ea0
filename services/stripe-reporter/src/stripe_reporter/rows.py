"""The journal's table: reading and writing many of its rows with one statement each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stripe_reporter.entries import Entry, State
from stripe_reporter.fence import Call
from stripe_reporter.reports import Facts, Report

_FACTS: Final = tuple(each.name for each in fields(Facts))
_CHANGING: Final = tuple(each.name for each in fields(Entry) if each.name != "facts")

_NEW: Final = """
unnest(CAST(:identifier AS text[]), CAST(:request_digest AS bytea[]), CAST(:state AS text[]),
       CAST(:key_n AS int[]), CAST(:attempts AS int[]), CAST(:started_at AS timestamptz[]),
       CAST(:first_unknown_at AS timestamptz[]), CAST(:answered_at AS timestamptz[]),
       CAST(:answer AS text[]), CAST(:reason AS text[]))
    AS n(identifier, request_digest, state, key_n, attempts, started_at, first_unknown_at,
         answered_at, answer, reason)
"""

_INSERT: Final = text("""
INSERT INTO meter_calls
       (identifier, report_id, stripe_customer_id, meter, value, occurred_at, request_digest,
        state, key_n, attempts, started_at, claim_id, event_count, dimensions)
SELECT n.identifier, n.report_id, n.stripe_customer_id, n.meter, n.value, n.occurred_at,
       n.request_digest, n.state, n.key_n, n.attempts, n.started_at, n.claim_id, n.event_count,
       n.dimensions::jsonb
  FROM unnest(
       CAST(:identifier AS text[]), CAST(:report_id AS uuid[]),
       CAST(:stripe_customer_id AS text[]), CAST(:meter AS text[]), CAST(:value AS bigint[]),
       CAST(:occurred_at AS timestamptz[]), CAST(:request_digest AS bytea[]),
       CAST(:state AS text[]), CAST(:key_n AS int[]), CAST(:attempts AS int[]),
       CAST(:started_at AS timestamptz[]), CAST(:claim_id AS uuid[]),
       CAST(:event_count AS bigint[]), CAST(:dimensions AS text[]))
    AS n(identifier, report_id, stripe_customer_id, meter, value, occurred_at, request_digest,
         state, key_n, attempts, started_at, claim_id, event_count, dimensions)
ON CONFLICT DO NOTHING
RETURNING identifier
""")

_LOCKED: Final = text("""
SELECT * FROM meter_calls WHERE identifier = ANY(:identifiers) ORDER BY identifier
   FOR UPDATE SKIP LOCKED
""")
_HELD: Final = text("SELECT identifier FROM meter_calls WHERE identifier = ANY(:identifiers)")

_WRITE: Final = """
UPDATE meter_calls AS m
   SET request_digest = n.request_digest, state = n.state, key_n = n.key_n,
       attempts = n.attempts, started_at = n.started_at, first_unknown_at = n.first_unknown_at,
       answered_at = n.answered_at, answer = n.answer, reason = n.reason
"""
_UPDATE: Final = text(f"{_WRITE} FROM {_NEW} WHERE m.identifier = n.identifier")
_ANSWER: Final = text(f"""
{_WRITE} FROM {_NEW}
 WHERE m.identifier = n.identifier AND m.state = 'calling' AND m.attempts = n.attempts
RETURNING m.identifier
""")

# Out of the small index of rows that are not accepted.
_OLDEST_UNKNOWN: Final = text("""
SELECT min(coalesce(first_unknown_at, started_at)) FROM meter_calls
 WHERE state <> 'accepted'
   AND (state = 'unknown' OR (state = 'calling' AND started_at < :lost_before))
""")

# By the index on the first of the two; what began at one moment is sorted in passing.
_BEGUN: Final = text("""
SELECT * FROM meter_calls
 WHERE (started_at, identifier) > (:started_at, :identifier)
 ORDER BY started_at, identifier LIMIT :most
""")


async def insert(connection: AsyncConnection, calls: Sequence[Call]) -> set[str]:
    """Insert the reports of ``calls`` as being called; return the identifiers that were new."""
    if not calls:
        return set()
    ordered = sorted(calls, key=lambda call: call.report.identifier)
    columns = _columns({call.report.identifier: call.entry for call in ordered})
    for name in _FACTS:
        columns[name] = [getattr(call.report.facts, name) for call in ordered]
    columns["claim_id"] = [call.report.claim_id for call in ordered]
    columns["event_count"] = [call.report.event_count for call in ordered]
    columns["dimensions"] = [json.dumps(dict(call.report.dimensions)) for call in ordered]
    return {row.identifier for row in await connection.execute(_INSERT, columns)}


async def locked(
    connection: AsyncConnection, identifiers: Iterable[str]
) -> tuple[dict[str, Entry], set[str]]:
    """Lock rows until the commit; return those, and the identifiers that other transactions hold.

    Nobody is waited for: a peer that was frozen while it held a row would stop every other report.
    """
    wanted = set(identifiers)
    found = await connection.execute(_LOCKED, {"identifiers": sorted(wanted)}) if wanted else ()
    entries = {row.identifier: _entry(row) for row in found}
    missing = sorted(wanted - entries.keys())
    held = await connection.execute(_HELD, {"identifiers": missing}) if missing else ()
    return entries, {row.identifier for row in held}


async def write(connection: AsyncConnection, entries: Mapping[str, Entry]) -> None:
    """Write rows that this transaction has locked, by identifier."""
    if entries:
        await connection.execute(_UPDATE, _columns(entries))


async def answer(connection: AsyncConnection, entries: Mapping[str, Entry]) -> set[str]:
    """Write rows that are still ``calling`` the same attempt; return their identifiers."""
    written = await connection.execute(_ANSWER, _columns(entries))
    return {row.identifier for row in written}


async def oldest_unknown(connection: AsyncConnection, lost_before: datetime) -> datetime | None:
    """Return since when the oldest unknown outcome has been unknown.

    A caller that has not answered since ``lost_before`` counts as lost.
    """
    found = await connection.execute(_OLDEST_UNKNOWN, {"lost_before": lost_before})
    since: datetime | None = found.scalar_one()
    return since


async def begun(
    connection: AsyncConnection, after: tuple[datetime, str], most: int
) -> list[tuple[Report, Entry]]:
    """Return rows by when their last call began and by identifier, from ``after`` on."""
    started_at, identifier = after
    values = {"started_at": started_at, "identifier": identifier, "most": most}
    return [(_report(row), _entry(row)) for row in await connection.execute(_BEGUN, values)]


def _columns(entries: Mapping[str, Entry]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"identifier": list(entries)}
    for name in _CHANGING:
        columns[name] = [getattr(entry, name) for entry in entries.values()]
    return columns


def _report(row: Row[*tuple[Any, ...]]) -> Report:
    dimensions = tuple(sorted((row.dimensions or {}).items()))
    facts = _entry(row).facts
    return Report(row.identifier, facts, dimensions, row.claim_id, row.event_count)


def _entry(row: Row[*tuple[Any, ...]]) -> Entry:
    values = row._mapping  # noqa: SLF001 - public, and so named because columns are attributes
    return Entry(
        facts=Facts(**{name: values[name] for name in _FACTS}),
        **{name: values[name] for name in _CHANGING if name != "state"},
        state=State(values["state"]),
    )
