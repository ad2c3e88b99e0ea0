"""A process frozen in an open transaction: its locks stay until somebody ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from metering_chaos.arena import Arena, in_thread
from metering_chaos.database_faults import superuser
from metering_chaos.plan import PROCESSES, Fault
from metering_chaos.process_faults import asleep

CAUGHT_WITHIN: Final = 10.0
"""Seconds in which somebody is to write to the table; of users there is little news."""

MADE_WITHIN: Final = 1.0
"""Seconds after which a change that has not been made was given up before its process froze."""

LOOK_EVERY: Final = 0.01

WAITING: Final = """
SELECT client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.relation = $1::text::regclass AND NOT l.granted
"""
LEFT_OPEN: Final = """
SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.relation = $1::text::regclass AND l.granted AND l.mode = 'RowExclusiveLock'
   AND a.client_port = $2 AND a.state = 'idle in transaction'
"""


async def freeze(arena: Arena, fault: Fault) -> None:
    """Freeze whichever process writes to a table next, its change made and not committed.

    Later it goes on with its transaction, or is killed in its sleep and started again.
    """
    service, table = fault.target.split()
    rows = f"SELECT count(*) FROM {table}"  # noqa: S608 - a table of the plan's
    until = asyncio.get_running_loop().time() + CAUGHT_WITHIN
    async with superuser(arena, service) as session:
        while asyncio.get_running_loop().time() < until:
            async with _caught(arena, session, table, until) as process:
                if process is None:
                    continue
                arena.say(f"{process} is frozen in a transaction")
                before = await session.fetchval(rows)
                await asyncio.sleep(fault.seconds)
                arena.seen["transactions left open by a frozen process"] += 1
                arena.seen["rows added beside them"] += await session.fetchval(rows) - before
                if fault.draw % 2:
                    await in_thread(arena.stack.services[process].kill)
                    await in_thread(arena.stack.services[process].launch)
                return


@asynccontextmanager
async def _caught(
    arena: Arena, session: asyncpg.Connection, table: str, until: float
) -> AsyncIterator[str | None]:
    """Freeze a process in its change of a table while the context lasts; None if that failed."""
    async with AsyncExitStack() as sleep:
        async with session.transaction():
            await session.execute(f"LOCK TABLE {table} IN SHARE MODE")
            port, process = await _writer(arena, session, table, until)
            if process is not None:
                await sleep.enter_async_context(arena.locks[process])
                await sleep.enter_async_context(asleep(arena, process))
        yield process if await _is_left_open(session, table, port) else None


async def _writer(
    arena: Arena, session: asyncpg.Connection, table: str, until: float
) -> tuple[int, str | None]:
    """Wait for a process whose change waits for the table; return its session's port and its name.

    A process that another fault is harming is passed over.
    """
    while asyncio.get_running_loop().time() < until:
        for row in await session.fetch(WAITING, table):
            for process in PROCESSES:
                ports = arena.ports(process, "database")
                if row["client_port"] in ports and not arena.locks[process].locked():
                    return row["client_port"], process
        await asyncio.sleep(LOOK_EVERY)
    return 0, None


async def _is_left_open(session: asyncpg.Connection, table: str, port: int) -> bool:
    until = asyncio.get_running_loop().time() + MADE_WITHIN
    while not (found := await session.fetchval(LEFT_OPEN, table, port)):
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(LOOK_EVERY)
    return bool(found)
