"""One service's database: a pool of sessions and the transaction around each piece of work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nexus_database.connecting import Connector
from nexus_database.faults import (
    TRY_AGAIN,
    DatabaseUnavailableError,
    ReadsOnlyError,
    RowsBusyError,
    spares_sessions,
    sqlstate,
    translated,
    unavailable,
)
from nexus_database.url import DatabaseUrl

T = TypeVar("T")

DRIVER: Final = "postgresql+asyncpg"

TRIES: Final = 5

OLDEST_SESSION: Final = 600
"""Seconds after which a session is replaced: whatever state it has got into ends with it."""

CLOSE_TIMEOUT: Final = 2.0
"""Seconds for closing all sessions: the server, or what is between, may be silent."""

BUSY_FOR: Final = 5.0
"""Seconds after rows were found busy, during which waits for locks are short: the rest of a batch
is tried piece by piece then, and a long wait for each piece would hold up everybody else."""

OVER_AFTER: Final = 5.0
"""Seconds without a fault after which an outage is logged as over: some work may go on in it."""

WAIT_FOR_LOCKS: Final = text("SET LOCAL lock_timeout = 0")
"""For a person's command, which nobody waits behind: it waits as long as a statement may take."""

_SHORT_WAITS: Final = text("SET LOCAL lock_timeout = '10ms'")

_READS_ONLY: Final = text("SELECT current_setting('transaction_read_only') = 'on'")

# Who waits for such a lock stops those behind it, too. Permanent tables only: those of sessions
# are locked by them alone.
_TABLE_LOCKED: Final = text("""
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
       AND c.relnamespace <> 'pg_catalog'::regnamespace)
""")

log = structlog.get_logger()


class Database:
    """Runs pieces of work, each in one transaction that is short and waits for no network.

    The URL is libpq's, with several hosts and TLS where wanted:
    ``postgresql://…@host1,host2/db?sslmode=verify-full&sslrootcert=FILE``.
    """

    def __init__(self, url: str, *, name: str, pool_size: int = 5) -> None:
        read = DatabaseUrl.of(url)
        self._connector = Connector(read, name)
        self.engine: AsyncEngine = create_async_engine(
            _shown(read),
            async_creator=self._connector.connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=OLDEST_SESSION,
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "handle_error", _distrust_sessions)
        self._busy_until = 0.0
        self._fault: str | None = None
        self._failed_at = 0.0

    async def __aenter__(self) -> Self:
        """Return itself; it connects when it is first used."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every session."""
        await self.close()

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction and commit; deadlocks are tried again at once.

        Raises:
            RowRefusedError: a row can never be stored.
            RowsBusyError: somebody else holds a row; the others can be worked on.
            DatabaseUnavailableError: nothing can be done at the moment.
        """
        try:
            result = await self._tried(work)
        except RowsBusyError:
            self._busy_until = time.monotonic() + BUSY_FOR
            await self._require_unlocked_tables()
            raise
        except DatabaseUnavailableError as error:
            self._failed(str(error))
            raise
        self._succeeded()
        return result

    async def probe(self) -> None:
        """Return if the database can be written to.

        Raises:
            DatabaseUnavailableError: it does not answer, or only reads.
        """
        await self.run(require_writable)

    async def close(self) -> None:
        """Close every session, without waiting for a server that does not answer."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.engine.dispose()
        except TimeoutError:
            self._connector.abort()

    async def _tried(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        with translated():
            for _ in range(TRIES - 1):
                try:
                    return await self._once(work)
                except (DBAPIError, asyncpg.PostgresError) as error:
                    if sqlstate(error) not in TRY_AGAIN:
                        raise
            return await self._once(work)

    async def _once(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self.engine.begin() as connection:
            if time.monotonic() < self._busy_until:
                await connection.execute(_SHORT_WAITS)
            return await work(connection)

    async def _require_unlocked_tables(self) -> None:
        """Return if no other session locks a whole table, so that the busy rows are alone.

        Raises:
            DatabaseUnavailableError: one does: no work on that table can be done.
        """
        if await self._tried(lambda connection: connection.scalar(_TABLE_LOCKED)):
            fault = "the database can't be used: another session locks a whole table"
            self._failed(fault)
            raise DatabaseUnavailableError(fault)

    def _failed(self, fault: str) -> None:
        self._failed_at = time.monotonic()
        # A command sets up no logging: it shows its fault itself.
        if fault != self._fault and structlog.is_configured():
            log.warning("database_unavailable", cause=fault)
        self._fault = fault

    def _succeeded(self) -> None:
        if self._fault is None or time.monotonic() - self._failed_at < OVER_AFTER:
            return
        self._fault = None
        if structlog.is_configured():
            log.info("database_available")


async def require_writable(connection: AsyncConnection) -> None:
    """Return if this transaction may write.

    Raises:
        DatabaseUnavailableError: the server only reads; the session is not used again.
    """
    if await connection.scalar(_READS_ONLY):
        await connection.invalidate()
        raise unavailable(ReadsOnlyError())


def _shown(read: DatabaseUrl) -> URL:
    """Return what the engine shows of its database; the connector alone goes by it all."""
    host = read.hosts[0]
    return URL.create(DRIVER, read.user, read.password, host.name, host.port, read.database)


def _distrust_sessions(context: ExceptionContext) -> None:
    """Have no session that is open now used again, unless the fault is known to spare them."""
    if not spares_sessions(context.original_exception):
        context.is_disconnect = True
