"""Sessions are opened where they can write, at whichever host and address answers."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from local_stack.postgres import PostgresServer
from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database, DatabaseUnavailableError, connecting
from nexus_database import database as database_module
from rig.hosts import OTHER_LOOPBACK, mute, resolve
from rig.waiting import eventually

LIMIT = 1
"""Seconds for each address, as the URLs of these tests have it."""


@pytest.fixture
def url(postgres: Server, password: str) -> Iterator[str]:
    """Return the URL of an empty database, with a short time limit for each address."""
    name = f"bare_{secrets.token_hex(4)}"
    run_sql(postgres.superuser_url, f"CREATE DATABASE {name} OWNER usage_ingest_owner")
    yield f"{postgres.url(name, 'usage_ingest_owner', password)}?connect_timeout={LIMIT}"
    run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def other(server_directory: Path) -> Iterator[PostgresServer]:
    """Return a server of the test's own."""
    with PostgresServer.start(server_directory / secrets.token_hex(4), durable=False) as server:
        yield server


@asynccontextmanager
async def opened(url: str, size: int = 1) -> AsyncIterator[Database]:
    """Open a database while the context lasts."""
    database = Database(url, name="test", pool_size=size)
    try:
        yield database
    finally:
        await database.close()


def at(url: str, *hosts: str) -> str:
    """Return ``url`` with other hosts at its port, or with ports of their own."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    with_ports = [each if ":" in each else f"{each}:{parts.port}" for each in hosts]
    return parts._replace(netloc=f"{login}@{','.join(with_ports)}").geturl()


def port_of(url: str) -> int:
    """Return the port of the server."""
    port = urlsplit(url).port
    assert port is not None
    return port


def make_the_same(server: PostgresServer, url: str) -> str:
    """Make role and database of ``url`` on another server; return the database's name."""
    parts = urlsplit(url)
    role, name = parts.username, parts.path[1:]
    run_sql(server.superuser_url, f"CREATE ROLE {role} LOGIN PASSWORD '{parts.password}'")
    run_sql(server.superuser_url, f"CREATE DATABASE {name} OWNER {role}")
    return name


async def took(database: Database) -> float:
    """Probe the database; return how many seconds that took."""
    began = time.monotonic()
    await database.probe()
    return time.monotonic() - began


async def test_silent_first_address_of_a_name_costs_its_own_limit_only(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is reached, and tried first from then on."""
    resolve(monkeypatch, {"database.test": (OTHER_LOOPBACK, "127.0.0.1")})

    async with (
        mute(port=port_of(url)) as silent,
        opened(at(url, "database.test"), size=2) as database,
    ):
        first = await took(database)
        async with database.engine.connect():
            second = await took(database)

    assert LIMIT <= first < LIMIT + 3
    assert second < LIMIT
    assert silent.accepted == 1


async def test_silent_hosts_of_a_list_cost_a_limit_each(url: str) -> None:
    """And so does one that can't be resolved: the last one of four is reached."""
    hosts = (OTHER_LOOPBACK, "127.0.0.3", "nowhere.invalid", "127.0.0.1")
    port = port_of(url)

    async with (
        mute(port=port),
        mute("127.0.0.3", port),
        opened(at(url, *hosts)) as database,
    ):
        seconds = await took(database)

    assert 2 * LIMIT <= seconds < 3 * LIMIT + 3


async def test_database_that_no_host_has_says_why_for_each(url: str) -> None:
    """The operator reads which of them to look at."""
    hosts = (OTHER_LOOPBACK, "127.0.0.4", "nowhere.invalid")

    async with mute(port=port_of(url)), opened(at(url, *hosts)) as database:
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.probe()

    port = port_of(url)
    assert str(caught.value) == (
        f"no server of the database can be used: {OTHER_LOOPBACK}:{port}: TimeoutError;"
        f" 127.0.0.4:{port}: ConnectionRefusedError; nowhere.invalid:{port}: gaierror"
    )


async def test_refused_login_ends_the_search(url: str, password: str) -> None:
    """As libpq has it: the next server would refuse it as well, and lock the role perhaps."""
    wrong = at(url, "127.0.0.1", OTHER_LOOPBACK).replace(password, "wrong")

    async with mute(port=port_of(url)) as silent, opened(wrong) as database:
        with pytest.raises(DatabaseUnavailableError, match="password is refused"):
            await database.probe()

    assert not silent.accepted


async def test_server_that_only_reads_is_passed_over(url: str, other: PostgresServer) -> None:
    """The one that can write is found behind it, however well the other answers."""
    name = make_the_same(other, url)
    run_sql(other.superuser_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    async with opened(at(url, f"127.0.0.1:{other.port}", "127.0.0.1")) as database:
        await database.probe()
        port = await shown(database, "port")
    async with opened(at(url, f"127.0.0.1:{other.port}")) as database:
        with pytest.raises(DatabaseUnavailableError, match=r"SQLSTATE 25006, it only reads"):
            await database.probe()

    assert port == str(port_of(url))


async def test_sessions_that_turn_read_only_are_all_replaced(other: PostgresServer) -> None:
    """The first write that meets it ends them; with the cause the outage ends, without a person."""
    async with opened(other.superuser_url, size=3) as database:
        pids = await sessions_of(database, 3)
        reload(other, "default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailableError, match="only reads"):
            await database.run(lambda c: c.execute(text("CREATE TABLE t ()")))
        with pytest.raises(DatabaseUnavailableError, match="only reads"):
            await database.probe()
        reload(other, "default_transaction_read_only = off")
        await database.probe()

        assert pids.isdisjoint(await sessions_of(database, 3))


async def test_fault_that_is_known_to_be_of_a_row_leaves_the_sessions(url: str) -> None:
    """A bad row costs no new connection."""
    async with opened(url, size=3) as database:
        pids = await sessions_of(database, 3)
        with pytest.raises(Exception, match="SQLSTATE 22"):
            await database.run(lambda c: c.execute(text("SELECT 1 / 0")))

        assert await sessions_of(database, 3) == pids


async def test_outage_is_logged_once_with_its_cause(other: PostgresServer) -> None:
    """However many pieces of work meet it."""
    async with opened(other.superuser_url) as database:
        await database.probe()
        with capture_logs() as logged:
            other.kill()
            for _ in range(3):
                with pytest.raises(DatabaseUnavailableError):
                    await database.probe()

    told = [line for line in logged if line["event"] == "database_unavailable"]
    assert [line["log_level"] for line in told] == ["warning"]
    assert told[0]["cause"].startswith("the database")


async def test_end_of_an_outage_is_logged_once(other: PostgresServer) -> None:
    """After some seconds without a fault: some work may go on in an outage."""
    async with opened(other.superuser_url) as database:
        with capture_logs() as logged:
            other.kill()
            with pytest.raises(DatabaseUnavailableError):
                await database.probe()
            other.restart()
            await eventually(lambda: events(database, logged), lambda names: len(names) >= 2)
            names = await events(database, logged)

    assert names == ["database_unavailable", "database_available"]


async def events(database: Database, logged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Probe the database; return the names of all log lines until now."""
    with suppress(DatabaseUnavailableError):
        await database.probe()
    return [str(line["event"]) for line in logged]


async def test_session_bounds_what_it_may_hold_up(url: str) -> None:
    """A frozen process gives its locks back, and so does one whose machine has vanished."""
    names = (
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "tcp_keepalives_count",
        "tcp_user_timeout",
    )
    async with opened(url) as database:
        held = [await shown(database, name) for name in names]
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            its = driver._transport.get_extra_info("socket")
            silence = its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert held == ["1s", "10s", "10", "5", "3", "20000"]
    assert silence == 20_000


async def test_parameters_of_the_url_reach_the_server(url: str) -> None:
    """``application_name`` and ``options``, as for `psql`."""
    more = "&application_name=mine&options=-c%20search_path%3Delsewhere"

    async with opened(url + more) as database:
        name = await shown(database, "application_name")
        path = await shown(database, "search_path")

    assert (name, path) == ("mine", "elsewhere")


async def shown(database: Database, setting: str) -> str:
    """Return a setting of a session."""
    return str(await database.run(lambda c: c.scalar(text(f"SHOW {setting}"))))


async def sessions_of(database: Database, number: int) -> set[int]:
    """Return the backends of ``number`` sessions used at once."""
    together = asyncio.Barrier(number)

    async def one() -> int:
        async with database.engine.connect() as connection:
            pid: int = await connection.scalar(text("SELECT pg_backend_pid()"))
            await together.wait()
            return pid

    return set(await asyncio.gather(*(one() for _ in range(number))))


def reload(server: PostgresServer, setting: str) -> None:
    """Change a setting of a running server, for sessions that are open, too."""
    run_sql(
        server.superuser_url, f"SET default_transaction_read_only = off; ALTER SYSTEM SET {setting}"
    )
    run_sql(server.superuser_url, "SELECT pg_reload_conf()")


async def test_missing_database_ends_the_search(url: str) -> None:
    """As a refused login does: the next host would cost its whole limit, and lack it as well."""
    missing = urlsplit(at(url, "127.0.0.1", OTHER_LOOPBACK))._replace(path="/nowhere").geturl()

    async with mute(port=port_of(url)) as silent, opened(missing) as database:
        with pytest.raises(DatabaseUnavailableError, match="there is no such database"):
            await database.probe()

    assert not silent.accepted


async def test_session_ends_at_its_age(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it has come to that nothing else notices."""
    monkeypatch.setattr(database_module, "OLDEST_SESSION", 0)

    async with opened(url) as database:
        first, second = await sessions_of(database, 1), await sessions_of(database, 1)

    assert first != second


async def test_statement_ends_at_its_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs over one is unavailable; else its caller would wait for ever."""
    monkeypatch.setattr(connecting, "STATEMENT_TIMEOUT", 0.5)

    async with opened(url) as database, asyncio.timeout(20):
        with pytest.raises(DatabaseUnavailableError):
            await database.run(lambda c: c.execute(text("SELECT pg_sleep(60)")))


async def test_server_that_only_reads_now_is_left_by_the_probe(
    url: str, other: PostgresServer
) -> None:
    """Nothing was written since that would have met it: its session alone would stay for ever."""
    make_the_same(other, url)
    async with opened(at(url, f"127.0.0.1:{other.port}", "127.0.0.1")) as database:
        assert await shown(database, "port") == str(other.port)
        reload(other, "default_transaction_read_only = on")

        async def probed() -> str | None:
            try:
                await database.probe()
            except DatabaseUnavailableError:
                return None
            return await shown(database, "port")

        await eventually(probed, lambda port: port == str(port_of(url)))
