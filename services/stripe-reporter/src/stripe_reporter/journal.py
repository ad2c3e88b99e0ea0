"""The memory of what may have been charged: a row is committed before each call and after it."""

from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Update, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from stripe_reporter.entries import Entry, State
from stripe_reporter.fence import Call, Decision, Taken, decide
from stripe_reporter.meanings import Meaning
from stripe_reporter.reports import Facts, Report
from stripe_reporter.tables import meter_calls

_FACTS: Final = tuple(each.name for each in fields(Facts))
_CHANGING: Final = tuple(each.name for each in fields(Entry) if each.name != "facts")


class Journal:
    """Claims reports for a call and records the answers; both are compare-and-set."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, report: Report, now: datetime) -> Decision:
        """Decide on ``report`` and, if it is to be called, commit that it is being called.

        Raises:
            DatabaseUnavailableError: nothing was claimed, or nobody knows; do not call.
        """

        async def work(connection: AsyncConnection) -> Decision:
            first = decide(report, None, now)
            if isinstance(first, Call) and await _inserted(connection, first):
                return first
            found = await _locked(connection, report.identifier)
            if found is None:
                # The insert met the report under another identifier: Stripe would count both.
                return Taken() if isinstance(first, Call) else first
            decision = decide(report, found, now)
            if isinstance(decision, Call):
                await connection.execute(_writing(report.identifier, decision.entry))
            return decision

        return await self._database.run(work)

    async def record(self, call: Call, meaning: Meaning, at: datetime) -> Entry:
        """Commit what became of ``call`` and return the row.

        Raises:
            DatabaseUnavailableError: the row still says ``calling``, which becomes ``unknown``.
        """
        identifier, attempts = call.report.identifier, call.entry.attempts
        after = call.entry.answered(attempts, meaning, at)

        async def work(connection: AsyncConnection) -> Entry:
            untouched = _writing(identifier, after).where(
                meter_calls.c.state == State.CALLING.value, meter_calls.c.attempts == attempts
            )
            written = await connection.execute(untouched.returning(meter_calls.c.attempts))
            if written.one_or_none() is not None:
                return after
            found = await _locked(connection, identifier)
            if found is None:
                return after
            late = found.answered(attempts, meaning, at)
            if late != found:
                await connection.execute(_writing(identifier, late))
            return late

        return await self._database.run(work)


async def _inserted(connection: AsyncConnection, call: Call) -> bool:
    statement = (
        insert(meter_calls)
        .values(
            identifier=call.report.identifier,
            **{name: getattr(call.report.facts, name) for name in _FACTS},
            **_changing(call.entry),
        )
        .on_conflict_do_nothing()
        .returning(meter_calls.c.attempts)
    )
    return (await connection.execute(statement)).one_or_none() is not None


async def _locked(connection: AsyncConnection, identifier: str) -> Entry | None:
    """Return the row, locked until the commit: of two copies only one sees what it may claim."""
    query = select(meter_calls).where(meter_calls.c.identifier == identifier).with_for_update()
    found = (await connection.execute(query)).one_or_none()
    return None if found is None else _entry(found)


def _writing(identifier: str, entry: Entry) -> Update:
    return (
        update(meter_calls).where(meter_calls.c.identifier == identifier).values(**_changing(entry))
    )


def _changing(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _CHANGING}


def _entry(row: Row[*tuple[Any, ...]]) -> Entry:
    values = row._mapping  # noqa: SLF001 - public, and so named because columns are attributes
    return Entry(
        facts=Facts(**{name: values[name] for name in _FACTS}),
        **{name: values[name] for name in _CHANGING if name != "state"},
        state=State(values["state"]),
    )
