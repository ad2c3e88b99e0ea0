"""The database of a service: a pool of sessions, and one transaction for each piece of work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nexus_database.connecting import Connector
from nexus_database.faults import (
    RETRYABLE,
    DatabaseUnavailableError,
    ReadOnlyError,
    RowsBusyError,
    leaves_sessions_usable,
    sqlstate,
    translate_errors,
    unavailable,
)
from nexus_database.url import DatabaseUrl

T = TypeVar("T")

DRIVER: Final = "postgresql+asyncpg"

MAX_ATTEMPTS: Final = 5
"""At one transaction, after errors that its repetition mends, such as a deadlock."""

MAX_SESSION_AGE: Final = 600
"""Seconds after which a session is replaced, so that no bad session state lasts longer."""

PING_AFTER: Final = 1.0
"""Seconds without use after which a session is pinged before its next transaction.

A ping costs as much as a small transaction. A session that the server has closed is known without
one. One that was lost silently within the last second is found by its transaction, as one that is
lost during it."""

CLOSE_TIMEOUT: Final = 2.0
"""Seconds for closing all sessions; the server or the network may be silent."""

SHORT_WAITS_SECONDS: Final = 5.0
"""Seconds with a short ``lock_timeout`` after a row was locked. Meanwhile the rest of the batch is
tried in smaller parts, and a long wait for each part would delay all other messages."""

RECOVERED_AFTER: Final = 5.0
"""Seconds without a fault after which an outage is logged as over: some work succeeds during it."""

WAIT_FOR_LOCKS: Final = text("SET LOCAL lock_timeout = 0")
"""For commands of an operator, which delay no other work: they may wait for locks as long as a
statement may take."""

_SHORT_WAITS: Final = text("SET LOCAL lock_timeout = '10ms'")

_USED_AT: Final = "used_at"
"""The key under which the pool keeps when a session was last used."""

_IS_READ_ONLY: Final = text("SELECT current_setting('transaction_read_only') = 'on'")

# A session that waits for such a lock also blocks the sessions queued behind it. Permanent tables
# only: only its own session locks a temporary table.
_IS_TABLE_LOCKED: Final = text("""
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
       AND c.relnamespace <> 'pg_catalog'::regnamespace)
""")


class Database:
    """Runs pieces of work, each in one short transaction without network calls.

    The URL has libpq's form, optionally with several hosts and TLS:
    ``postgresql://…@host1,host2/db?sslmode=verify-full&sslrootcert=FILE``. With ``only_reads`` the
    sessions can't write, and each transaction sees one state of the database.
    """

    def __init__(
        self, url: str, *, name: str, pool_size: int = 5, only_reads: bool = False
    ) -> None:
        parsed = DatabaseUrl.of(url)
        self._connector = Connector(parsed, name, only_reads=only_reads)
        self.engine: AsyncEngine = create_async_engine(
            _display_url(parsed),
            async_creator=self._connector.connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_recycle=MAX_SESSION_AGE,
            hide_parameters=True,
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        event.listen(self.engine.sync_engine, "handle_error", _discard_sessions)
        event.listen(self.engine.sync_engine, "checkin", _note_use)
        event.listen(self.engine.sync_engine, "checkout", self._require_open)
        self._busy_until = 0.0
        self._fault: str | None = None
        self._failed_at = 0.0

    async def __aenter__(self) -> Self:
        """Return itself; it connects on first use."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every session."""
        await self.close()

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, in_transaction: bool = True
    ) -> T:
        """Run ``work`` in one transaction and commit; retry immediately after a deadlock.

        With ``in_transaction`` false, each statement is a transaction of its own, which saves the
        round trips of BEGIN and COMMIT. For ``work`` that only reads.

        Raises:
            RowRefusedError: a row can never be stored.
            RowsBusyError: another transaction locks a row; other rows can be processed.
            DatabaseUnavailableError: the database can't be used at the moment.
        """
        try:
            engine = self.engine if in_transaction else self._autocommit
            result = await self._run_with_retries(work, engine)
        except RowsBusyError:
            self._busy_until = time.monotonic() + SHORT_WAITS_SECONDS
            await self._require_unlocked_tables()
            raise
        except DatabaseUnavailableError as error:
            self._note_fault(str(error))
            raise
        self._note_success()
        return result

    async def probe(self) -> None:
        """Return if the database accepts writes.

        Raises:
            DatabaseUnavailableError: it does not answer or is read-only.
        """
        await self.run(require_writable)

    async def close(self) -> None:
        """Close every session, without waiting for a server that does not answer."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.engine.dispose()
        except TimeoutError:
            self._connector.abort()

    async def _run_with_retries(
        self, work: Callable[[AsyncConnection], Awaitable[T]], engine: AsyncEngine
    ) -> T:
        with translate_errors():
            for _ in range(MAX_ATTEMPTS - 1):
                try:
                    return await self._run_once(work, engine)
                except (DBAPIError, asyncpg.PostgresError) as error:
                    if sqlstate(error) not in RETRYABLE:
                        raise
            return await self._run_once(work, engine)

    async def _run_once(
        self, work: Callable[[AsyncConnection], Awaitable[T]], engine: AsyncEngine
    ) -> T:
        async with engine.begin() as connection:
            if time.monotonic() < self._busy_until:
                await connection.execute(_SHORT_WAITS)
            return await work(connection)

    async def _require_unlocked_tables(self) -> None:
        """Return if no other session locks a whole table, so that only single rows are locked.

        Raises:
            DatabaseUnavailableError: another session locks a table; no work on it is possible.
        """
        if await self._run_with_retries(
            lambda connection: connection.scalar(_IS_TABLE_LOCKED), self.engine
        ):
            fault = "the database can't be used: another session locks a whole table"
            self._note_fault(fault)
            raise DatabaseUnavailableError(fault)

    def _require_open(self, session: DBAPIConnection, record: Any, _proxy: object) -> None:
        """Have the pool replace its sessions if this one was closed, or idle and answers no ping.

        Raises:
            InvalidatePoolError: to the pool, which tries a new session.
        """
        dialect = self.engine.dialect
        if dialect.get_driver_connection(session).is_closed():
            raise InvalidatePoolError
        used_at = record.info.get(_USED_AT, inf)  # a new session was just opened
        if time.monotonic() - used_at >= PING_AFTER:
            try:
                dialect.do_ping(session)
            except dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError from error

    def _note_fault(self, fault: str) -> None:
        self._failed_at = time.monotonic()
        if fault != self._fault and (log := _configured_log()):
            log.warning("database_unavailable", cause=fault)
        self._fault = fault

    def _note_success(self) -> None:
        if self._fault is None or time.monotonic() - self._failed_at < RECOVERED_AFTER:
            return
        self._fault = None
        if log := _configured_log():
            log.info("database_available")


def _configured_log() -> Any:
    """Return the log of a running service; a command has none, and shows the fault itself."""
    import structlog

    return structlog.get_logger() if structlog.is_configured() else None


async def require_writable(connection: AsyncConnection) -> None:
    """Return if this transaction may write.

    Raises:
        DatabaseUnavailableError: the server is read-only; the session is not used again.
    """
    if await connection.scalar(_IS_READ_ONLY):
        await connection.invalidate()
        raise unavailable(ReadOnlyError())


def _display_url(url: DatabaseUrl) -> URL:
    """Return the URL that the engine displays; only the connector uses all hosts and options."""
    host = url.hosts[0]
    return URL.create(DRIVER, url.user, url.password, host.name, host.port, url.database)


def _note_use(_session: object, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _discard_sessions(context: ExceptionContext) -> None:
    """Discard all open sessions, unless the fault is known to leave them usable."""
    if not leaves_sessions_usable(context.original_exception):
        context.is_disconnect = True
