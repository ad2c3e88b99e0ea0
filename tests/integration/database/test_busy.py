"""What a lock of somebody else's means: these rows, or the whole table."""

import secrets
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database, DatabaseUnavailableError, RowsBusyError
from rig.databases import url_of

CHANGE = text("UPDATE t SET v = v + 1 WHERE n = :row")


@pytest.fixture
async def database(postgres: Server) -> AsyncIterator[Database]:
    """Return a database with a table of a thousand rows."""
    name = f"bare_{secrets.token_hex(4)}"
    run_sql(postgres.superuser_url, f"CREATE DATABASE {name}")
    url = postgres.superuser_url.rpartition("/")[0] + f"/{name}"
    run_sql(url, "CREATE TABLE t AS SELECT n, 0 AS v FROM generate_series(1, 1000) AS n")
    opened = Database(url, name="test")
    yield opened
    await opened.close()
    run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def holder(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Return a session in a transaction that nothing ends."""
    session = await asyncpg.connect(url_of(database))
    await session.execute("BEGIN")
    yield session
    await session.close()


async def change(database: Database, row: int) -> float:
    """Change a row; return how many seconds that took."""
    began = time.monotonic()
    await database.run(lambda connection: connection.execute(CHANGE, {"row": row}))
    return time.monotonic() - began


async def test_row_that_another_transaction_holds_is_busy_and_no_other(
    database: Database, holder: asyncpg.Connection
) -> None:
    """It is waited for much less long than a statement may take; the sessions stay."""
    await holder.execute("SELECT FROM t WHERE n = 1 FOR UPDATE")

    began = time.monotonic()
    with pytest.raises(RowsBusyError):
        await change(database, 1)
    waited = time.monotonic() - began
    await change(database, 2)

    assert 1 <= waited < 10
    await holder.execute("ROLLBACK")
    await change(database, 1)


async def test_many_busy_rows_are_found_in_little_time(
    database: Database, holder: asyncpg.Connection
) -> None:
    """A batch is looked through piece by piece while others wait for its end."""
    await holder.execute("SELECT FROM t FOR UPDATE")

    began = time.monotonic()
    for row in range(1, 51):
        with pytest.raises(RowsBusyError):
            await change(database, row)

    assert time.monotonic() - began < 25


async def test_locked_table_is_an_outage(database: Database, holder: asyncpg.Connection) -> None:
    """No row of it can be changed: each would wait longer and longer for nothing of its own."""
    await holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

    with pytest.raises(DatabaseUnavailableError, match="another session locks a whole table"):
        await change(database, 1)

    await holder.execute("ROLLBACK")
    await change(database, 1)
