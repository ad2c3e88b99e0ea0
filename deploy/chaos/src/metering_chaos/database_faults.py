"""Faults of the database server and its sessions: killed, locked, read-only, on a full disk."""

import asyncio
from contextlib import suppress
from typing import Final

from metering_chaos.environment import (
    DATABASE_ERRORS,
    FULL_DISK_MB,
    Environment,
    in_thread,
    role_of,
)
from metering_chaos.plan import Fault

# Active sessions first, so that the end meets a transaction.
END_ONE: Final = """
SELECT coalesce(state <> 'idle', false) AS active, pg_terminate_backend(pid) AS ended
  FROM pg_stat_activity WHERE usename = $1
 ORDER BY active DESC, random() LIMIT 1
"""
END_EVERY_SECONDS: Final = 0.05
POLL_SECONDS: Final = 0.02

END_ALL: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
BEGUN: Final = """
SELECT pid FROM pg_stat_activity WHERE usename = $1 AND backend_start > $2
"""

REFUSED: Final = "File too large"


async def kill(environment: Environment, _fault: Fault) -> None:
    """Kill it and start it again: it recovers."""
    await in_thread(environment.stack.postgres.kill)
    await in_thread(environment.stack.postgres.restart)


async def restart(environment: Environment, _fault: Fault) -> None:
    """Shut it down (PostgreSQL's fast shutdown) and start it again."""
    await in_thread(environment.stack.postgres.restart)


async def lock_table(environment: Environment, fault: Fault) -> None:
    """Lock a table for a while, as a migration without a lock timeout does."""
    service, table = fault.target.split()
    async with environment.database(service) as session, session.transaction():
        await session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(fault.seconds)


async def end_sessions(environment: Environment, fault: Fault) -> None:
    """End a service's sessions one by one for a while, those in a transaction first."""
    until = asyncio.get_running_loop().time() + fault.seconds
    async with environment.database(fault.target, superuser=True) as session:
        while asyncio.get_running_loop().time() < until:
            for row in await session.fetch(END_ONE, role_of(fault.target)):
                environment.observed["sessions ended"] += row["ended"]
                environment.observed["active sessions ended"] += row["ended"] and row["active"]
            await asyncio.sleep(END_EVERY_SECONDS)


async def end_all_sessions(environment: Environment, service: str) -> None:
    """End every session of a service once, if the server answers."""
    with suppress(*DATABASE_ERRORS):
        async with environment.database(service, superuser=True) as session:
            await session.fetch(END_ALL, role_of(service))


async def reach_standby(environment: Environment, fault: Fault) -> None:
    """End a service's sessions and make new ones read-only for a while, as a failover may do.

    A session that begins meanwhile stays read-only for as long as it lasts.
    """
    role = role_of(fault.target)
    until = asyncio.get_running_loop().time() + fault.seconds
    begun: set[int] = set()
    async with environment.database(fault.target, superuser=True) as session:
        await session.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        try:
            since = await session.fetchval("SELECT clock_timestamp()")
            await session.fetch(END_ALL, role)
            while asyncio.get_running_loop().time() < until:
                begun |= {row["pid"] for row in await session.fetch(BEGUN, role, since)}
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await session.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
            environment.observed["read-only sessions"] += len(begun)


async def fill_disk(environment: Environment, fault: Fault) -> None:
    """Let no file of the database grow for a while; its rows can still be read and changed."""
    postgres = environment.stack.postgres
    before = postgres.log.read_text(errors="replace").count(REFUSED)
    try:
        await in_thread(lambda: postgres.limit_files(FULL_DISK_MB * 2**20))
        await asyncio.sleep(fault.seconds)
    finally:
        await in_thread(lambda: postgres.limit_files(None))
    after = postgres.log.read_text(errors="replace").count(REFUSED)
    environment.observed["writes refused by a full disk"] += after - before
