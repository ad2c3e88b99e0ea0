"""Harm to the database server: ended, locked, its sessions ended one by one, its disk full."""

import asyncio
from typing import Final

import asyncpg

from metering_chaos.arena import FULL_DISK_MB, Arena, in_thread
from metering_chaos.plan import Fault

# Those at work first: it is a transaction's end that is to be hit.
END_ONE: Final = """
SELECT coalesce(state <> 'idle', false) AS at_work, pg_terminate_backend(pid) AS ended
  FROM pg_stat_activity WHERE usename = $1
 ORDER BY at_work DESC, random() LIMIT 1
"""
BETWEEN_ENDS: Final = 0.05

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
    role = fault.target.replace("-", "_")
    connection = await asyncpg.connect(arena.stack.postgres.superuser_url, timeout=5)
    until = asyncio.get_running_loop().time() + fault.seconds
    try:
        while asyncio.get_running_loop().time() < until:
            for row in await connection.fetch(END_ONE, role):
                arena.seen["sessions ended"] += row["ended"]
                arena.seen["sessions ended at work"] += row["ended"] and row["at_work"]
            await asyncio.sleep(BETWEEN_ENDS)
    finally:
        await connection.close(timeout=5)


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
