"""Faults of one process of a service: killed, stopped, frozen for a moment or beyond its leases."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from metering_chaos.environment import DATABASE_ERRORS, GRACE_SECONDS, Environment, in_thread
from metering_chaos.plan import INGEST, REPORTER, Fault
from metering_chaos.plan_file import append_price

STOP_SECONDS: Final = GRACE_SECONDS + 12
"""After the grace, consumers have 8 seconds to hand back, and connections a few to close."""

CALLING: Final = "SELECT identifier FROM meter_calls WHERE state = 'calling'"
TAKEN_OVER: Final = """
SELECT count(*) FROM meter_calls
 WHERE identifier = ANY($1::text[]) AND (attempts > 1 OR state <> 'calling')
"""


async def kill(environment: Environment, fault: Fault) -> None:
    """Kill it and start it again."""
    service = environment.stack.services[fault.target]
    await in_thread(service.kill)
    await in_thread(service.launch)


async def stop(environment: Environment, fault: Fault) -> None:
    """Stop it as a deploy does and start it again."""
    await _restart(environment, fault.target)


async def price_model(environment: Environment, _fault: Fault | None = None) -> None:
    """Append a model's price to the file of plans, and restart who prices."""
    append_price(environment.plans_file)
    for process in environment.stack.services:
        if process.startswith(INGEST):
            async with environment.locks[process]:
                await _restart(environment, process)


async def _restart(environment: Environment, process: str) -> None:
    service = environment.stack.services[process]
    service.terminate()
    if not await in_thread(lambda: service.wait_for_exit(STOP_SECONDS)):
        environment.note_unexpected(f"{process} did not stop within {STOP_SECONDS:.0f} s")
        await in_thread(service.kill)
    await in_thread(service.launch)


async def freeze(environment: Environment, fault: Fault) -> None:
    """Freeze it for a moment."""
    async with frozen(environment, fault.target):
        await asyncio.sleep(fault.seconds)


async def outlast_leases(environment: Environment, fault: Fault) -> None:
    """Freeze it until others have taken over its work, then let it go on with that."""
    async with frozen(environment, fault.target):
        await asyncio.sleep(1)
        reporter = fault.target.startswith(REPORTER)
        calls = await _calls_in_flight(environment) if reporter else []
        connections = environment.ports(fault.target, "broker")
        await asyncio.sleep(fault.seconds - 1)
        observed = environment.observed
        observed["calls in flight of a frozen process"] += len(calls)
        observed["calls taken over from a frozen process"] += await _taken_over(environment, calls)
        closed = len(connections - environment.ports(fault.target, "broker"))
        observed["connections of a frozen process closed by the broker"] += closed


@asynccontextmanager
async def frozen(environment: Environment, process: str) -> AsyncIterator[None]:
    """Freeze a process (SIGSTOP) while the context lasts.

    Raises:
        ProcessLookupError: it does not run.
    """
    pid = environment.stack.services[process].pid
    if pid is None:
        raise ProcessLookupError
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # killed meanwhile
            os.kill(pid, signal.SIGCONT)


async def _calls_in_flight(environment: Environment) -> list[str]:
    """Return the identifiers that have a call in flight; none if the database has a fault too."""
    with suppress(*DATABASE_ERRORS):
        async with environment.database(REPORTER) as journal:
            return [row["identifier"] for row in await journal.fetch(CALLING)]
    return []


async def _taken_over(environment: Environment, calls: list[str]) -> int:
    with suppress(*DATABASE_ERRORS):
        async with environment.database(REPORTER) as journal:
            return int(await journal.fetchval(TAKEN_OVER, calls))
    return 0
