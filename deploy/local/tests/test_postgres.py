"""A PostgreSQL server: started, killed, restarted, stopped."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from local_stack.directory_lock import DirectoryInUseError
from local_stack.identities import ProcessIdentity, descendants
from local_stack.ports import free_ports
from local_stack.postgres import PostgresServer
from local_stack.processes import ChildDiedError
from local_stack.sql import SqlFailedError, run_sql


async def test_a_client_connects_with_the_password(postgres: PostgresServer) -> None:
    """The superuser's URL works as it is, and the server is PostgreSQL 18."""
    connection = await asyncpg.connect(postgres.superuser_url)
    version = await connection.fetchval("SHOW server_version")
    await connection.close()

    assert version == postgres.version
    assert version.startswith("18.")


async def test_a_client_without_the_password_is_refused(postgres: PostgresServer) -> None:
    """Being on the same machine is not enough."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url("postgres", "postgres", "guessed"))


def test_a_committed_row_survives_a_crash_and_a_restart(postgres: PostgresServer) -> None:
    """A kill loses no committed row, and the port stays the same."""
    run_sql(postgres.superuser_url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")

    postgres.kill()
    postgres.restart()

    assert run_sql(postgres.superuser_url, "SELECT n FROM kept") == "7\n"


def test_a_check_of_a_dead_server_fails(postgres: PostgresServer) -> None:
    """The error has the end of its log."""
    postgres.kill()

    with pytest.raises(ChildDiedError, match="ended with code -9"):
        postgres.check()


def test_data_is_found_again_by_the_next_server(tmp_path: Path) -> None:
    """Stopping and starting in the same folder continues with the same data and password."""
    with PostgresServer.start(tmp_path, durable=False) as first:
        password = urlsplit(first.superuser_url).password
        run_sql(first.superuser_url, "CREATE DATABASE kept")

    with PostgresServer.start(tmp_path, durable=False) as second:
        found = run_sql(
            second.superuser_url, "SELECT count(*) FROM pg_database WHERE datname='kept'"
        )

        assert urlsplit(second.superuser_url).password == password
    assert found == "1\n"


def test_nothing_is_left_running_after_a_stop(tmp_path: Path) -> None:
    """The server and all its worker processes are gone when ``stop`` returns."""
    server = PostgresServer.start(tmp_path, durable=False)
    pid = server.pids["PostgreSQL"]
    running = [ProcessIdentity.of(pid), *descendants(pid)]
    assert len(running) > 1

    server.stop()

    assert not any(process and process.alive for process in running)


def test_a_second_server_in_the_same_folder_is_refused(postgres: PostgresServer) -> None:
    """Two servers on the same data would destroy it; the first keeps running."""
    with pytest.raises(DirectoryInUseError, match=f"in use by process {os.getpid()}"):
        PostgresServer.start(postgres.directory)

    assert run_sql(postgres.superuser_url, "SELECT 1") == "1\n"


def test_a_wanted_port_that_is_taken_is_replaced(postgres: PostgresServer, tmp_path: Path) -> None:
    """Where the wanted port is free it is used; where not, another."""
    (free,) = free_ports(None)

    with (
        PostgresServer.start(tmp_path / "a", port=free, durable=False) as at_free,
        PostgresServer.start(tmp_path / "b", port=postgres.port, durable=False) as at_taken,
    ):
        assert at_free.port == free
        assert at_taken.port != postgres.port


def test_a_refused_statement_is_reported_without_its_text(postgres: PostgresServer) -> None:
    """The error has PostgreSQL's message and not the statement with its password."""
    with pytest.raises(SqlFailedError) as refused:
        run_sql(postgres.superuser_url, "ALTER ROLE absent PASSWORD 'hush-hush'")

    assert 'role "absent" does not exist' in str(refused.value)
    assert "hush-hush" not in str(refused.value)


def test_a_server_whose_files_are_limited_refuses_to_grow_and_lives(tmp_path: Path) -> None:
    """As on a full disk: what would grow a table is refused, the rest works; lifted, all works."""
    fill = "INSERT INTO filled SELECT generate_series(1, 100000)"
    with PostgresServer.start(tmp_path, durable=False, wal_segment_mb=1) as server:
        run_sql(server.superuser_url, "CREATE TABLE filled (n int); CREATE TABLE small (n int)")
        server.limit_files(2**20)
        with pytest.raises(SqlFailedError, match="File too large"):
            run_sql(server.superuser_url, fill)
        run_sql(server.superuser_url, "INSERT INTO small VALUES (1)")

        server.limit_files(None)
        run_sql(server.superuser_url, fill)

        assert run_sql(server.superuser_url, "SELECT count(*) FROM filled") == "100000\n"
        server.check()
