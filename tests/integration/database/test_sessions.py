"""Open sessions: when they are replaced, what limits them, and how their loss is logged."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from integration.database.sessions import end, reload, sessions_of, setting_of
from local_stack.postgres import PostgresServer
from nexus_database import Database, DatabaseUnavailableError, connecting
from nexus_database import database as database_module
from support.databases import opened
from support.waiting import eventually


async def test_sessions_that_turned_read_only_are_all_replaced(other: PostgresServer) -> None:
    """The first failed write ends them; the outage ends with its cause, without an operator."""
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


async def test_sessions_lost_while_idle_are_replaced_unnoticed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the server: a session that was idle is pinged before its use."""
    monkeypatch.setattr(database_module, "PING_AFTER", 0.0)
    async with opened(url, size=3) as database:
        pids = await sessions_of(database, 3)
        end(url, pids)
        await database.probe()

        assert pids.isdisjoint(await sessions_of(database, 3))


async def test_session_lost_in_steady_use_costs_at_most_one_transaction(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not pinged, but is known to be closed as soon as the server's last packet is read."""
    monkeypatch.setattr(database_module, "PING_AFTER", 60.0)
    async with opened(url, size=3) as database:
        pids = await sessions_of(database, 3)
        end(url, pids)
        with suppress(DatabaseUnavailableError):
            await database.probe()

        assert pids.isdisjoint(await sessions_of(database, 3))


async def test_fault_of_a_row_keeps_the_sessions(url: str) -> None:
    """An invalid row costs no new connection."""
    async with opened(url, size=3) as database:
        pids = await sessions_of(database, 3)
        with pytest.raises(Exception, match="SQLSTATE 22"):
            await database.run(lambda c: c.execute(text("SELECT 1 / 0")))

        assert await sessions_of(database, 3) == pids


async def test_outage_is_logged_once_with_its_cause(
    other: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many transactions fail in it, if none was in progress as it began."""
    monkeypatch.setattr(database_module, "PING_AFTER", 0.0)
    async with opened(other.superuser_url) as database:
        await database.probe()
        with capture_logs() as logged:
            other.kill()
            for _ in range(3):
                with pytest.raises(DatabaseUnavailableError):
                    await database.probe()

    lines = [line for line in logged if line["event"] == "database_unavailable"]
    assert [line["log_level"] for line in lines] == ["warning"]
    assert lines[0]["cause"].startswith("the database")


async def test_end_of_an_outage_is_logged_once(other: PostgresServer) -> None:
    """Some seconds after the last fault: in an outage some transactions may succeed."""
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


async def test_session_has_timeouts_for_locks_and_lost_peers(url: str) -> None:
    """A frozen process releases its locks, and so does one whose machine has vanished."""
    names = (
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "tcp_keepalives_count",
        "tcp_user_timeout",
    )
    async with opened(url) as database:
        settings = [await setting_of(database, name) for name in names]
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            its = driver._transport.get_extra_info("socket")
            silence = its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert settings == ["1s", "10s", "10", "5", "3", "20000"]
    assert silence == 20_000


async def test_session_ends_at_its_age(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever state it has reached that nothing else detects."""
    monkeypatch.setattr(database_module, "MAX_SESSION_AGE", 0)

    async with opened(url) as database:
        first, second = await sessions_of(database, 1), await sessions_of(database, 1)

    assert first != second


async def test_statement_ends_at_its_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not finish a statement is unavailable; its caller waits no longer."""
    monkeypatch.setattr(connecting, "STATEMENT_TIMEOUT", 0.5)

    async with opened(url) as database, asyncio.timeout(20):
        with pytest.raises(DatabaseUnavailableError):
            await database.run(lambda c: c.execute(text("SELECT pg_sleep(60)")))
