"""Locks of another session: on rows the rows are busy, on a whole table the database is away."""

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database, DatabaseUnavailableError, RowsBusyError
from support.databases import empty_database, opened, url_of

CHANGE = text("UPDATE t SET v = v + 1 WHERE n = :row")


@pytest.fixture
async def database(postgres: Server) -> AsyncIterator[Database]:
    """Return a database with a table of a thousand rows."""
    with empty_database(postgres) as name:
        url = postgres.superuser_url.rpartition("/")[0] + f"/{name}"
        run_sql(url, "CREATE TABLE t AS SELECT n, 0 AS v FROM generate_series(1, 1000) AS n")
        async with opened(url, size=5) as database:
            yield database


@pytest.fixture
async def holder(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Return a session in a transaction that stays open."""
    session = await asyncpg.connect(url_of(database))
    await session.execute("BEGIN")
    yield session
    await session.close()


async def change(database: Database, row: int) -> None:
    """Change a row."""
    await database.run(lambda connection: connection.execute(CHANGE, {"row": row}))


async def test_row_locked_by_another_transaction_alone_is_busy(
    database: Database, holder: asyncpg.Connection
) -> None:
    """The wait is much shorter than a statement may take, and the sessions stay."""
    await holder.execute("SELECT FROM t WHERE n = 1 FOR UPDATE")

    began = time.monotonic()
    with pytest.raises(RowsBusyError):
        await change(database, 1)
    waited = time.monotonic() - began
    await change(database, 2)

    assert 1 <= waited < 10
    await holder.execute("ROLLBACK")
    await change(database, 1)


async def test_fifty_locked_rows_are_found_busy_within_25_seconds(
    database: Database, holder: asyncpg.Connection
) -> None:
    """A batch is tried row by row while other messages wait for its end."""
    await holder.execute("SELECT FROM t FOR UPDATE")

    began = time.monotonic()
    for row in range(1, 51):
        with pytest.raises(RowsBusyError):
            await change(database, row)

    assert time.monotonic() - began < 25


async def test_locked_table_is_an_outage(database: Database, holder: asyncpg.Connection) -> None:
    """No row of it can be changed, so that no single row is the cause."""
    await holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

    with pytest.raises(DatabaseUnavailableError, match="another session locks a whole table"):
        await change(database, 1)

    await holder.execute("ROLLBACK")
    await change(database, 1)
