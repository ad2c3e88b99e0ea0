"""The journal, `meter_calls`: what may have been charged.

A report's row is committed before each call and after it. Many rows are read or written with one
statement each.
"""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts.fields import EARLIEST
from nexus_database import Database, RowRefusedError, RowsBusyError
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from stripe_reporter.fence import (
    CALL_LIFETIME,
    Call,
    CallInProgress,
    Decision,
    Entry,
    IdentifierReused,
    State,
    decide,
)
from stripe_reporter.group_commit import GroupCommit
from stripe_reporter.reports import Facts, Report
from stripe_reporter.stripe.responses import Response

PAGE: Final = 1000
"""Rows that are read at once when the journal is listed."""

_REPORT_COLUMNS: Final = {
    "identifier": "text",
    "report_id": "uuid",
    "stripe_customer_id": "text",
    "meter": "text",
    "value": "bigint",
    "occurred_at": "timestamptz",
    "claim_id": "uuid",
    "event_count": "bigint",
    "dimensions": "text",
    "late": "boolean",
}
"""Inserted, and never updated: the role has no grant for that. ``dimensions`` is JSON as text."""

_CALL_COLUMNS: Final = {
    "request_digest": "bytea",
    "state": "text",
    "key_n": "int",
    "attempts": "int",
    "started_at": "timestamptz",
    "first_unknown_at": "timestamptz",
    "answered_at": "timestamptz",
    "answer": "text",
    "reason": "text",
    "accepted_key_n": "int",
}
"""What calls change."""

_MARKS: Final = ("rejected_later", "rejected_later_at")
"""What Stripe may say later, which ``rejections.py`` stores."""

_COLUMNS: Final = _REPORT_COLUMNS | _CALL_COLUMNS
_FACTS: Final = tuple(each.name for each in fields(Facts))


def _rows(*columns: str) -> str:
    """Return SQL for rows ``n`` of ``columns``, made of one array parameter for each column."""
    arrays = ", ".join(f"CAST(:{name} AS {_COLUMNS[name]}[])" for name in columns)
    return f"unnest({arrays}) AS n({', '.join(columns)})"


_SELECTED: Final = ", ".join(f"n.{name}" for name in _COLUMNS)
_INSERT: Final = text(f"""
INSERT INTO meter_calls ({", ".join(_COLUMNS)})
SELECT {_SELECTED.replace("n.dimensions", "n.dimensions::jsonb")} FROM {_rows(*_COLUMNS)}
    ON CONFLICT DO NOTHING
RETURNING identifier
""")  # noqa: S608 - of this module's constants

_UPDATE: Final = f"""
UPDATE meter_calls AS m SET {", ".join(f"{name} = n.{name}" for name in _CALL_COLUMNS)}
  FROM {_rows("identifier", *_CALL_COLUMNS)} WHERE m.identifier = n.identifier
"""  # noqa: S608 - of this module's constants
_WRITE_LOCKED: Final = text(_UPDATE)
_WRITE_ANSWERS: Final = text(f"""
{_UPDATE} AND m.state = 'calling' AND m.attempts = n.attempts RETURNING m.identifier
""")

_LOCK: Final = text("""
SELECT * FROM meter_calls WHERE identifier = ANY(:identifiers) ORDER BY identifier
   FOR UPDATE SKIP LOCKED
""")
_EXISTING: Final = text("SELECT identifier FROM meter_calls WHERE identifier = ANY(:identifiers)")

# Uses the small index of rows that are not accepted.
_OLDEST_UNKNOWN: Final = text("""
SELECT min(coalesce(first_unknown_at, started_at)) FROM meter_calls
 WHERE state <> 'accepted'
   AND (state = 'unknown' OR (state = 'calling' AND started_at < :lost_before))
""")

# Uses the index on started_at; rows that began at the same time are sorted among themselves.
_STARTED_AFTER: Final = text("""
SELECT * FROM meter_calls
 WHERE (started_at, identifier) > (:started_at, :identifier)
 ORDER BY started_at, identifier LIMIT :most
""")

# Of reports that were called before: what a person, or Stripe, said of them since, or what was
# announced since. What Stripe said may have waited for the broker for long.
_SETTLED_SINCE: Final = text("""
WITH late AS MATERIALIZED (
    SELECT identifier FROM meter_calls WHERE answered_at >= :since AND started_at < :before
     UNION
    SELECT identifier FROM meter_calls WHERE rejected_later_at >= :since AND started_at < :before
     UNION
    SELECT identifier FROM late_rejections WHERE announced_at >= :since
)
SELECT m.* FROM late JOIN meter_calls m USING (identifier)
 WHERE (started_at, identifier) > (:started_at, :identifier)
   AND started_at < :before
 ORDER BY started_at, identifier LIMIT :most
""")


@dataclass(frozen=True, slots=True)
class _Claim:
    report: Report
    at: datetime


@dataclass(frozen=True, slots=True)
class _Answer:
    call: Call
    response: Response
    at: datetime

    @property
    def identifier(self) -> str:
        return self.call.report.identifier

    def applied(self, entry: Entry) -> Entry:
        return entry.after(self.call.entry, self.response, self.at)


class Journal:
    """Claims reports for a call and records the answers; both are compare-and-set."""

    def __init__(self, database: Database) -> None:
        self._database = database
        of_one = (RowRefusedError, RowsBusyError)
        self._claims = GroupCommit(self._claim, errors_of_one=of_one)
        self._answers = GroupCommit(self._record, errors_of_one=of_one)

    async def claim(self, report: Report, now: datetime) -> Decision:
        """Decide on ``report`` and, if it is to be called, commit that it is being called.

        A row that another transaction holds is being decided on, or answered, at this moment.

        Raises:
            DatabaseUnavailableError: nothing was claimed, or it is unknown; do not call.
            PermanentError: the report can never be stored.
        """
        try:
            return await self._claims.submit(_Claim(report, now))
        except RowsBusyError:
            return CallInProgress()
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None

    async def record(self, call: Call, response: Response, at: datetime) -> Entry:
        """Commit what became of ``call`` and return the row.

        Raises:
            RowsBusyError: another transaction holds the row, which says ``calling``.
            DatabaseUnavailableError: the row still says ``calling``, which becomes ``unknown``.
        """
        return await self._answers.submit(_Answer(call, response, at))

    async def oldest_unknown(self, now: datetime) -> datetime | None:
        """Return since when the oldest unknown outcome has been unknown, if there is one.

        Raises:
            DatabaseUnavailableError: it can't be read.
        """
        values = {"lost_before": now - CALL_LIFETIME}
        found = await self._database.run(lambda c: c.execute(_OLDEST_UNKNOWN, values))
        since: datetime | None = found.scalar_one()
        return since

    async def calls_since(self, since: datetime) -> AsyncGenerator[tuple[Report, Entry], None]:
        """Yield each report that was called, answered or rejected later since, oldest call first.

        Raises:
            DatabaseUnavailableError: it can't be read further.
        """
        before = since - CALL_LIFETIME
        settled = {"since": since, "before": before}
        for statement, values, start in (
            (_SETTLED_SINCE, settled, EARLIEST),
            (_STARTED_AFTER, {}, before),
        ):
            place: dict[str, Any] = {**values, "started_at": start, "identifier": "", "most": PAGE}
            while page := await self._database.run(partial(_page, statement=statement, of=place)):
                for row in page:
                    yield _report(row), entry_of(row)
                place |= {"started_at": page[-1].started_at, "identifier": page[-1].identifier}

    async def _claim(self, group: Sequence[_Claim]) -> Sequence[Decision]:
        return await self._database.run(lambda connection: _claim_group(connection, group))

    async def _record(self, group: Sequence[_Answer]) -> Sequence[Entry]:
        return await self._database.run(lambda connection: _record_group(connection, group))


async def _claim_group(connection: AsyncConnection, group: Sequence[_Claim]) -> list[Decision]:
    """Insert the rows of new reports; lock the rows of the others and decide on them.

    Of several deliveries of one report in a group the first may insert; the others find its row.
    """
    decisions = [decide(claim.report, None, claim.at) for claim in group]
    new: dict[str, tuple[int, Call]] = {}
    for place, decision in enumerate(decisions):
        if isinstance(decision, Call):
            new.setdefault(decision.report.identifier, (place, decision))
    inserted = await insert_calls(connection, [call for _, call in new.values()])

    won = {new[identifier][0] for identifier in inserted}
    known = [place for place in range(len(group)) if place not in won]
    entries, held = await _lock(connection, [group[place].report.identifier for place in known])
    claimed: dict[str, Entry] = {}
    for place in known:
        report, at = group[place].report, group[place].at
        entry = entries.get(report.identifier)
        decision = decide(report, entry, at)
        if report.identifier in held:
            decision = CallInProgress()
        elif entry is None and isinstance(decision, Call):
            # Its insert met the report's id under another identifier: Stripe would count both.
            decision = IdentifierReused()
        decisions[place] = decision
        if isinstance(decision, Call):
            claimed[report.identifier] = entries[report.identifier] = decision.entry
    await _write_locked(connection, claimed)
    return decisions


async def _record_group(connection: AsyncConnection, group: Sequence[_Answer]) -> list[Entry]:
    """Write the answers of calls that were not taken over; apply the others to their rows."""
    entries = [answer.applied(answer.call.entry) for answer in group]
    by_identifier = {each.identifier: entry for each, entry in zip(group, entries, strict=True)}
    written = await connection.execute(_WRITE_ANSWERS, _call_arrays(by_identifier))
    in_time = {row.identifier for row in written}

    late = [place for place, answer in enumerate(group) if answer.identifier not in in_time]
    found, held = await _lock(connection, [group[place].identifier for place in late])
    if held:
        raise RowsBusyError
    for place in late:
        name = group[place].identifier
        entries[place] = found[name] = group[place].applied(found[name])
    await _write_locked(connection, {group[place].identifier: entries[place] for place in late})
    return entries


async def _page(
    connection: AsyncConnection, *, statement: TextClause, of: Mapping[str, Any]
) -> Sequence[Row[*tuple[Any, ...]]]:
    return (await connection.execute(statement, of)).all()


async def insert_calls(connection: AsyncConnection, calls: Sequence[Call]) -> set[str]:
    """Insert the reports of ``calls`` as being called; return the identifiers that were new."""
    if not calls:
        return set()
    ordered = sorted(calls, key=lambda call: call.report.identifier)
    arrays = _call_arrays({call.report.identifier: call.entry for call in ordered})
    for name in _FACTS:
        arrays[name] = [getattr(call.report.facts, name) for call in ordered]
    arrays["claim_id"] = [call.report.claim_id for call in ordered]
    arrays["event_count"] = [call.report.event_count for call in ordered]
    arrays["late"] = [call.report.late for call in ordered]
    arrays["dimensions"] = [json.dumps(dict(call.report.dimensions)) for call in ordered]
    return {row.identifier for row in await connection.execute(_INSERT, arrays)}


async def _lock(
    connection: AsyncConnection, identifiers: Iterable[str]
) -> tuple[dict[str, Entry], set[str]]:
    """Lock rows until the commit; return those, and the identifiers that other transactions hold.

    It waits for no lock: a process that was frozen while it held a row would stop all reports.
    """
    wanted = set(identifiers)
    found = await connection.execute(_LOCK, {"identifiers": sorted(wanted)}) if wanted else ()
    entries = {row.identifier: entry_of(row) for row in found}
    missing = sorted(wanted - entries.keys())
    held = await connection.execute(_EXISTING, {"identifiers": missing}) if missing else ()
    return entries, {row.identifier for row in held}


async def _write_locked(connection: AsyncConnection, entries: Mapping[str, Entry]) -> None:
    if entries:
        await connection.execute(_WRITE_LOCKED, _call_arrays(entries))


def _call_arrays(entries: Mapping[str, Entry]) -> dict[str, list[Any]]:
    arrays: dict[str, list[Any]] = {"identifier": list(entries)}
    for name in _CALL_COLUMNS:
        arrays[name] = [getattr(entry, name) for entry in entries.values()]
    return arrays


def _report(row: Row[*tuple[Any, ...]]) -> Report:
    dimensions = tuple(sorted((row.dimensions or {}).items()))
    facts = entry_of(row).facts
    return Report(row.identifier, facts, dimensions, row.claim_id, row.event_count, row.late)


def entry_of(row: Row[*tuple[Any, ...]]) -> Entry:
    """Return a report's row, of which every column was selected."""
    values = row._mapping  # noqa: SLF001 - public, and so named because columns are attributes
    return Entry(
        facts=Facts(**{name: values[name] for name in _FACTS}),
        **{name: values[name] for name in (*_CALL_COLUMNS, *_MARKS) if name != "state"},
        state=State(values["state"]),
    )
