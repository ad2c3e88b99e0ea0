"""Harm to the database server and its sessions: ended, locked, only reading, its disk full."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg

from local_stack.urls import login_of
from metering_chaos.arena import FULL_DISK_MB, Arena, in_thread
from metering_chaos.plan import Fault

# Those at work first: it is a transaction's end that is to be hit.
END_ONE: Final = """
SELECT coalesce(state <> 'idle', false) AS at_work, pg_terminate_backend(pid) AS ended
  FROM pg_stat_activity WHERE usename = $1
 ORDER BY at_work DESC, random() LIMIT 1
"""
BETWEEN_ENDS: Final = 0.05
BETWEEN_LOOKS: Final = 0.02

END_ALL: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
BEGUN: Final = """
SELECT pid FROM pg_stat_activity WHERE usename = $1 AND backend_start > $2
"""

REFUSED: Final = "File too large"


async def kill(arena: Arena, _fault: Fault) -> None:
    """Kill it and let it recover."""
    await in_thread(arena.stack.postgres.kill)
    await in_thread(arena.stack.postgres.restart)


async def restart(arena: Arena, _fault: Fault) -> None:
    """Shut it down, fast, and start it again."""
    await in_thread(arena.stack.postgres.restart)


async def lock_table(arena: Arena, fault: Fault) -> None:
    """Lock a table, as a careless migration does."""
    service, table = fault.target.split()
    url = arena.stack.database_url(service, owner=True)
    connection = await asyncpg.connect(url, timeout=5)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(fault.seconds)
    finally:
        await connection.close(timeout=5)


async def end_sessions(arena: Arena, fault: Fault) -> None:
    """End a service's sessions again and again, in the middle of a transaction if there is one."""
    until = asyncio.get_running_loop().time() + fault.seconds
    async with superuser(arena, fault.target) as session:
        while asyncio.get_running_loop().time() < until:
            for row in await session.fetch(END_ONE, _role(fault.target)):
                arena.seen["sessions ended"] += row["ended"]
                arena.seen["sessions ended at work"] += row["ended"] and row["at_work"]
            await asyncio.sleep(BETWEEN_ENDS)


async def end_all(arena: Arena, service: str) -> None:
    """End every session of a service once, if the server is there."""
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with superuser(arena, service) as session:
            await session.fetch(END_ALL, _role(service))


async def reach_standby(arena: Arena, fault: Fault) -> None:
    """End a service's sessions, and let new ones only read for a while: a failover's mistake.

    A session that was begun meanwhile only reads for as long as it lasts.
    """
    role = _role(fault.target)
    until = asyncio.get_running_loop().time() + fault.seconds
    begun: set[int] = set()
    async with superuser(arena, fault.target) as session:
        await session.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        try:
            since = await session.fetchval("SELECT clock_timestamp()")
            await session.fetch(END_ALL, role)
            while asyncio.get_running_loop().time() < until:
                begun |= {row["pid"] for row in await session.fetch(BEGUN, role, since)}
                await asyncio.sleep(BETWEEN_LOOKS)
        finally:
            await session.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
            arena.seen["sessions that could only read"] += len(begun)


@asynccontextmanager
async def superuser(arena: Arena, service: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a session in a service's database that may do everything and sees everybody."""
    postgres = arena.stack.postgres
    admin = login_of(postgres.superuser_url)
    url = postgres.url(_role(service), admin.user, admin.password)
    session = await asyncpg.connect(url, timeout=5)
    try:
        yield session
    finally:
        await session.close(timeout=5)


def _role(service: str) -> str:
    """Return the name of a service's role, which is its database's, too."""
    return service.replace("-", "_")


async def fill_disk(arena: Arena, fault: Fault) -> None:
    """Let no table grow any more, while what is there can be read and changed."""
    postgres = arena.stack.postgres
    before = postgres.log.read_text(errors="replace").count(REFUSED)
    try:
        await in_thread(lambda: postgres.limit_files(FULL_DISK_MB * 2**20))
        await asyncio.sleep(fault.seconds)
    finally:
        await in_thread(lambda: postgres.limit_files(None))
    after = postgres.log.read_text(errors="replace").count(REFUSED)
    arena.seen["writes refused by a full disk"] += after - before
