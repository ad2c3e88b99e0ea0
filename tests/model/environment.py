"""The real parts on real databases, and their observation: every row and every move."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from prometheus_client import CollectorRegistry
from sqlalchemy import Row, TextClause, delete, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from typing_extensions import override

from model.reference import WINDOW, Hour, Key
from model.sums import LAG
from model.transitions import MARK, TABLES
from nexus_database import Database
from stripe_reporter.metrics import ReporterMetrics
from stripe_reporter.storage.rejections import Rejections
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.differences import DifferenceReader
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import Reports

T = TypeVar("T")
S = TypeVar("S")

MAX_STEP_SECONDS: Final = 30.0
"""Seconds for one step, whatever the load of the machine; reached only if something hangs."""

PATIENCE: Final = 10.0
"""Seconds until work that should not wait for a lock counts as waiting."""

AUDIT: Final = f"""
CREATE FUNCTION state_of(of jsonb, named text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN of ->> '{MARK}' IS NULL THEN of ->> named ELSE '{MARK}' END
$$;
CREATE UNLOGGED TABLE moves (number bigserial, entity text, before text, after text);
CREATE FUNCTION note_move() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO moves (entity, before, after) VALUES (
        TG_TABLE_NAME,
        CASE WHEN TG_OP = 'INSERT' THEN '' ELSE state_of(to_jsonb(OLD), TG_ARGV[0]) END,
        state_of(to_jsonb(NEW), TG_ARGV[0]));
    RETURN NULL;
END
$$;
"""  # noqa: S608 - of this module's constants

CHANGED: Final = {
    "usage_events": "OLD.billing_state <> NEW.billing_state",
    "usage_reports": "OLD.state <> NEW.state OR OLD.answered_at <> NEW.answered_at",
    "meter_calls": (
        "OLD.state <> NEW.state OR OLD.attempts <> NEW.attempts"
        f" OR OLD.{MARK} IS DISTINCT FROM NEW.{MARK}"
    ),
}
"""Updates that are moves, also from a state to itself."""


def audit(tables: tuple[str, ...]) -> str:
    """Return the SQL of triggers that record each move of ``tables``."""
    triggers = [
        f"CREATE TRIGGER note_{event.lower()} AFTER {event} ON {table} FOR EACH ROW {when} "
        f"EXECUTE FUNCTION note_move('{TABLES[table][1]}');"
        for table in tables
        for event, when in (("INSERT", ""), ("UPDATE", f"WHEN ({CHANGED[table]})"))
    ]
    return AUDIT + "\n".join(triggers)


MOVES: Final = text("SELECT * FROM moves WHERE number > :last")

DATED: Final = text("""
UPDATE usage_reports SET created_at = :now WHERE report_id <> ALL(CAST(:known AS uuid[]))
""")

SETTLED: Final = text("""
UPDATE meter_calls SET state = :state, answered_at = :at, answer = 'by_hand', reason = :reason
 WHERE identifier = :identifier
""")


@dataclass(frozen=True)
class Seen:
    """Every row; a report and its row in the journal by what the report is for.

    ``hours`` are Stripe's sums as they were read, ``differences`` those that are open.
    """

    events: Mapping[UUID, Row[Any]]
    details: Mapping[UUID, Row[Any]]
    reports: Mapping[Key, Row[Any]]
    calls: Mapping[Key, Row[Any]]
    hours: Mapping[Hour, Row[Any]]
    differences: Mapping[Hour, Row[Any]]
    moves: set[tuple[str, str, str]]

    def key_of(self, report_id: UUID) -> Key:
        """Return what the report of that id is for."""
        return next(key for key, row in self.reports.items() if row.report_id == report_id)


class HeldDatabase(Database):
    """A database whose transactions stay open until they are released."""

    def __init__(self, url: str) -> None:
        super().__init__(url, name="held", pool_size=1)
        self._worked = asyncio.Event()
        self._released = asyncio.Event()

    async def during(
        self, slow: Coroutine[Any, Any, T], quick: Coroutine[Any, Any, S]
    ) -> tuple[T, S]:
        """Do all of ``quick`` while the transaction of ``slow``, on this database, is open."""
        self._worked.clear()
        self._released.clear()
        first = asyncio.create_task(slow)
        await self._worked.wait()
        second = asyncio.create_task(quick)
        _, waits = await asyncio.wait({second}, timeout=PATIENCE)
        self._released.set()
        results = await first, await second
        assert not waits, "one waited for the other's transaction to end"
        return results

    @override
    async def _run_once(
        self, work: Callable[[AsyncConnection], Awaitable[T]], engine: AsyncEngine
    ) -> T:
        async with engine.begin() as connection:
            try:
                result = await work(connection)
            finally:
                self._worked.set()
            await self._released.wait()
            return result


class IngestParts:
    """usage-ingest's side of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ledger = Ledger(database)
        self.reports = Reports(database)
        self.accounts = Accounts(database)
        self.sums = CountedSums(database, lag=LAG)
        self.reader = DifferenceReader(database)

    def claims(self, live_from: datetime | None) -> Claims:
        """Return the claims of a process with that setting."""
        return Claims(self._database, window=WINDOW, dimensions=["server_id"], live_from=live_from)


class Watcher:
    """An administrator's view of a database, outside of any transaction."""

    def __init__(self, url: str, *tables: str) -> None:
        database = Database(url, name="watch", pool_size=1)
        self._engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._tables = [table(name) for name in tables]
        self._last = 0

    async def clear(self) -> None:
        """Empty the tables."""
        async with self._engine.connect() as connection:
            for each in self._tables:
                await connection.execute(delete(each))
        await self.look()

    async def run(self, statement: TextClause, values: Mapping[str, Any]) -> None:
        """Run a statement that the services' roles may not."""
        async with self._engine.connect() as connection:
            await connection.execute(statement, values)

    async def look(self) -> tuple[list[Sequence[Row[Any]]], set[tuple[str, str, str]]]:
        """Return the rows of each table, and the moves since the last look."""
        async with self._engine.connect() as connection:
            tables = [
                (await connection.execute(select(text("*")).select_from(each))).all()
                for each in self._tables
            ]
            moves = await connection.execute(MOVES, {"last": self._last})
            seen = moves.all()
        self._last = max((row.number for row in seen), default=self._last)
        return tables, {(row.entity, row.before, row.after) for row in seen}

    async def close(self) -> None:
        """Close the connection."""
        await self._engine.dispose()


class Environment:
    """One event loop, the databases of both services, and the parts that work on them.

    ``ingest`` and ``reporter`` are the services' own roles' URLs, ``watchers`` an administrator's.
    """

    def __init__(self, ingest: str, reporter: str, watchers: tuple[str, str]) -> None:
        self._runner = asyncio.Runner()
        self._ingest = Database(ingest, name="ingest")
        self.held = HeldDatabase(ingest)
        self.journal = Database(reporter, name="reporter")
        self._ledger_watcher = Watcher(
            watchers[0],
            "usage_events",
            "usage_details",
            "usage_reports",
            "counted_hours",
            "differences",
            "counted_pairs",
            "billing_accounts",
            "account_customers",
            "account_assignments",
        )
        self._journal_watcher = Watcher(watchers[1], "meter_calls", "late_rejections")
        self.parts = IngestParts(self._ingest)
        self.slow = IngestParts(self.held)
        self.rejections = Rejections(self.journal)
        self.metrics = ReporterMetrics(CollectorRegistry())

    async def date(self, known: Collection[UUID], now: datetime) -> None:
        """Let all reports but the ``known`` ones be made ``now``; the database has a real clock."""
        await self._ledger_watcher.run(DATED, {"known": list(known), "now": now})

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the environment's event loop, together with its open tasks."""
        return self._runner.run(asyncio.wait_for(work, MAX_STEP_SECONDS))

    def clear(self) -> None:
        """Empty both databases."""
        self.run(self._ledger_watcher.clear())
        self.run(self._journal_watcher.clear())

    def close(self) -> None:
        """Close every connection, then the loop."""
        parts = (self._ingest, self.held, self.journal, self._ledger_watcher, self._journal_watcher)
        for each in parts:
            self.run(each.close())
        self._runner.close()

    async def look(self) -> Seen:
        """Read every row, and the moves since the last look."""
        tables, moved = await self._ledger_watcher.look()
        events, details, reports, hours, differences, *_ = tables
        (calls, _), called = await self._journal_watcher.look()
        claims: dict[UUID, set[UUID]] = {}
        for event in events:
            claims.setdefault(event.claim_id, set()).add(event.event_id)
        keys = {
            row.report_id: (frozenset(claims.get(row.claim_id, ())), row.meter, row.generation)
            for row in reports
        }
        assert len(set(keys.values())) == len(reports)
        return Seen(
            {row.event_id: row for row in events},
            {row.event_id: row for row in details},
            {keys[row.report_id]: row for row in reports},
            {keys[row.report_id]: row for row in calls},
            {(row.stripe_customer_id, row.meter, row.hour): row for row in hours},
            {
                (row.stripe_customer_id, row.meter, row.hour): row
                for row in differences
                if row.closed_at is None
            },
            moved | called,
        )

    async def settle_by_hand(self, identifier: str, at: datetime, *, counted: bool) -> None:
        """Record in the journal whether a report was counted, as docs/runbook.md says."""
        state, reason = ("accepted", None) if counted else ("refused", "no_such_customer")
        values = {"identifier": identifier, "at": at, "state": state, "reason": reason}
        await self.journal.run(lambda connection: connection.execute(SETTLED, values))
