"""A standby of a PostgreSQL server: it follows, delays the primary's COMMIT, and is promoted."""

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from local_stack.postgres import PostgresServer
from local_stack.sql import SqlFailedError, run_sql
from local_stack.standby import Standby

COUNT = "SELECT count(*) FROM kept"
INSERT = "INSERT INTO kept VALUES (2)"


@pytest.fixture
def standby(postgres: PostgresServer, tmp_path: Path) -> Iterator[Standby]:
    """Return a synchronous standby of a server that has one table."""
    run_sql(postgres.superuser_url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    directory = tmp_path / "standby"
    with Standby.follow(postgres, directory, synchronous=True, durable=False) as started:
        yield started


def test_a_standby_reads_and_refuses_to_write(standby: Standby) -> None:
    """It has the primary's rows, and is read-only."""
    assert run_sql(standby.superuser_url, COUNT) == "1\n"
    with pytest.raises(SqlFailedError, match="read-only transaction"):
        run_sql(standby.superuser_url, INSERT)


def test_a_promoted_standby_has_each_commit(postgres: PostgresServer, standby: Standby) -> None:
    """It has what the synchronous primary committed, and can write."""
    run_sql(postgres.superuser_url, INSERT)

    postgres.kill()
    standby.promote()
    run_sql(standby.superuser_url, "INSERT INTO kept VALUES (3)")

    assert run_sql(standby.superuser_url, COUNT) == "3\n"


async def test_commit_waits_for_a_synchronous_standby(
    postgres: PostgresServer, standby: Standby
) -> None:
    """While it is down COMMIT waits; after a cancel the row is on the primary alone."""
    client = await asyncpg.connect(postgres.superuser_url)

    standby.kill()
    with pytest.raises(TimeoutError):
        await client.execute(INSERT, timeout=1)
    on_primary = await client.fetchval(COUNT)
    await client.close()
    postgres.kill()
    standby.restart()
    standby.promote()

    assert on_primary == 2
    assert run_sql(standby.superuser_url, COUNT) == "1\n"


def test_an_asynchronous_standby_delays_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    """The primary commits without it."""
    with Standby.follow(postgres, tmp_path / "standby", durable=False) as standby:
        standby.kill()
        run_sql(postgres.superuser_url, "CREATE TABLE kept (n int)")

        assert run_sql(postgres.superuser_url, COUNT) == "0\n"
