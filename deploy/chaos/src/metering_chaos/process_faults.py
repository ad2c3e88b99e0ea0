"""Harm to one process of a service: killed, stopped, frozen for a moment or for too long."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg

from metering_chaos.arena import GRACE_SECONDS, Arena, in_thread
from metering_chaos.plan import Fault

STOPPED_WITHIN: Final = GRACE_SECONDS + 12
"""Seconds: after the grace, subscriptions may take 8 to hand back, and connections a few to end."""

CALLING: Final = "SELECT identifier FROM meter_calls WHERE state = 'calling'"
TAKEN_OVER: Final = """
SELECT count(*) FROM meter_calls
 WHERE identifier = ANY($1::text[]) AND (attempts > 1 OR state <> 'calling')
"""

# What looking raises while the database is harmed too: the sleep goes on unseen.
_UNSEEN: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def kill(arena: Arena, fault: Fault) -> None:
    """Kill it and start it again."""
    service = arena.stack.services[fault.target]
    await in_thread(service.kill)
    await in_thread(service.launch)


async def stop(arena: Arena, fault: Fault) -> None:
    """Stop it as a deploy does and start it again."""
    service = arena.stack.services[fault.target]
    service.terminate()
    if not await in_thread(lambda: service.wait_for_exit(STOPPED_WITHIN)):
        arena.note(f"{fault.target} did not stop within {STOPPED_WITHIN:.0f} s")
        await in_thread(service.kill)
    await in_thread(service.launch)


async def freeze(arena: Arena, fault: Fault) -> None:
    """Freeze it for a moment."""
    async with asleep(arena, fault.target):
        await asyncio.sleep(fault.seconds)


async def oversleep(arena: Arena, fault: Fault) -> None:
    """Freeze it until others have taken over what it had begun, and let it go on with that."""
    async with asleep(arena, fault.target):
        await asyncio.sleep(1)
        begun = await _calls_begun(arena) if fault.target.startswith("stripe-reporter") else []
        connections = arena.ports(fault.target, "broker")
        await asyncio.sleep(fault.seconds - 1)
        arena.seen["calls left under way by a sleeper"] += len(begun)
        arena.seen["calls taken over from a sleeper"] += await _taken_over(arena, begun)
        given_up = len(connections - arena.ports(fault.target, "broker"))
        arena.seen["connections of sleepers given up by the broker"] += given_up


@asynccontextmanager
async def asleep(arena: Arena, process: str) -> AsyncIterator[None]:
    """Freeze a process while the context lasts.

    Raises:
        ProcessLookupError: it does not run.
    """
    pid = arena.stack.services[process].pid
    if pid is None:
        raise ProcessLookupError
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # killed in its sleep
            os.kill(pid, signal.SIGCONT)


async def _calls_begun(arena: Arena) -> list[str]:
    """Return the reports that a call is under way for, now that nobody makes any."""
    with suppress(*_UNSEEN):
        async with _journal(arena) as journal:
            return [row["identifier"] for row in await journal.fetch(CALLING)]
    return []


async def _taken_over(arena: Arena, begun: list[str]) -> int:
    with suppress(*_UNSEEN):
        async with _journal(arena) as journal:
            return int(await journal.fetchval(TAKEN_OVER, begun))
    return 0


@asynccontextmanager
async def _journal(arena: Arena) -> AsyncIterator[asyncpg.Connection]:
    url = arena.stack.database_url("stripe-reporter", owner=True)
    connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)
