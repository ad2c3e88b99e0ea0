"""Sessions with PostgreSQL as these tests see and change them."""

import asyncio
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from sqlalchemy import text

from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from nexus_database import Database


def at(url: str, *hosts: str) -> str:
    """Return ``url`` with other hosts, at its port or at ports of their own."""
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


def reload(server: PostgresServer, setting: str) -> None:
    """Change a setting of a running server, for open sessions, too."""
    run_sql(
        server.superuser_url, f"SET default_transaction_read_only = off; ALTER SYSTEM SET {setting}"
    )
    run_sql(server.superuser_url, "SELECT pg_reload_conf()")


def end(url: str, pids: Iterable[int]) -> None:
    """End backends of the role of ``url``, and wait until they are gone."""
    for pid in pids:
        run_sql(url, f"SELECT pg_terminate_backend({pid}, 5000)")


async def probe_seconds(database: Database) -> float:
    """Probe the database; return how many seconds that took."""
    began = time.monotonic()
    await database.probe()
    return time.monotonic() - began


async def setting_of(database: Database, setting: str) -> str:
    """Return a setting of a session."""
    return str(await database.run(lambda c: c.scalar(text(f"SHOW {setting}"))))


async def sessions_of(database: Database, number: int) -> set[int]:
    """Return the backends of ``number`` sessions in use at the same time."""
    together = asyncio.Barrier(number)

    async def backend() -> int:
        async with database.engine.connect() as connection:
            pid: int = await connection.scalar(text("SELECT pg_backend_pid()"))
            await together.wait()
            return pid

    return set(await asyncio.gather(*(backend() for _ in range(number))))
