"""A process frozen in an open transaction: its locks stay until its session is ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from metering_chaos.environment import Environment, in_thread
from metering_chaos.plan import PROCESSES, Fault
from metering_chaos.process_faults import frozen

CATCH_SECONDS: Final = 10.0
"""How long to wait for a process that writes to the table; users are written seldom."""

CHANGE_SECONDS: Final = 1.0
"""How long a frozen process's statement may take; after that it was given up before."""

POLL_SECONDS: Final = 0.01

WAITING: Final = """
SELECT client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.relation = $1::text::regclass AND NOT l.granted
"""
LEFT_OPEN: Final = """
SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.relation = $1::text::regclass AND l.granted AND l.mode = 'RowExclusiveLock'
   AND a.client_port = $2 AND a.state = 'idle in transaction'
"""


async def freeze(environment: Environment, fault: Fault) -> None:
    """Freeze whichever process writes to a table next, its change made and not committed.

    Afterwards it goes on with its transaction, or is killed and started again.
    """
    service, table = fault.target.split()
    rows = f"SELECT count(*) FROM {table}"  # noqa: S608 - a table of the plan
    until = asyncio.get_running_loop().time() + CATCH_SECONDS
    async with environment.database(service, superuser=True) as session:
        while asyncio.get_running_loop().time() < until:
            async with _caught(environment, session, table, until) as process:
                if process is None:
                    continue
                environment.say(f"{process} is frozen in a transaction")
                before = await session.fetchval(rows)
                await asyncio.sleep(fault.seconds)
                environment.observed["transactions left open by a frozen process"] += 1
                environment.observed["rows added by others meanwhile"] += (
                    await session.fetchval(rows) - before
                )
                if fault.draw % 2:
                    await in_thread(environment.stack.services[process].kill)
                    await in_thread(environment.stack.services[process].launch)
                return


@asynccontextmanager
async def _caught(
    environment: Environment, session: asyncpg.Connection, table: str, until: float
) -> AsyncIterator[str | None]:
    """Freeze a process that has changed a table while the context lasts; None if that failed."""
    async with AsyncExitStack() as freezing:
        async with session.transaction():
            await session.execute(f"LOCK TABLE {table} IN SHARE MODE")
            port, process = await _writer(environment, session, table, until)
            if process is not None:
                await freezing.enter_async_context(environment.locks[process])
                await freezing.enter_async_context(frozen(environment, process))
        yield process if await _is_left_open(session, table, port) else None


async def _writer(
    environment: Environment, session: asyncpg.Connection, table: str, until: float
) -> tuple[int, str | None]:
    """Wait for a process whose change waits for the table; return its session's port and its name.

    A process that has another fault is left out.
    """
    while asyncio.get_running_loop().time() < until:
        for row in await session.fetch(WAITING, table):
            for process in PROCESSES:
                ports = environment.ports(process, "database")
                if row["client_port"] in ports and not environment.locks[process].locked():
                    return row["client_port"], process
        await asyncio.sleep(POLL_SECONDS)
    return 0, None


async def _is_left_open(session: asyncpg.Connection, table: str, port: int) -> bool:
    until = asyncio.get_running_loop().time() + CHANGE_SECONDS
    while not (found := await session.fetchval(LEFT_OPEN, table, port)):
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(POLL_SECONDS)
    return bool(found)
