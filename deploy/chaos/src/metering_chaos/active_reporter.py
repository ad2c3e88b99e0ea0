"""Which of two reporters is active: the broker delivers reports to one of them only."""

import asyncio
from typing import Final

from metering_chaos import management
from metering_chaos.environment import Environment
from metering_chaos.plan import PROCESSES, REPORTS_QUEUE

POLL_SECONDS: Final = 0.5


async def watch_active_reporter(environment: Environment) -> None:
    """Count how often another reporter becomes active; never returns."""
    active = None
    while True:
        try:
            now = await active_reporter(environment)
        except OSError:
            now = None  # the broker is away
        if now is not None and active not in {None, now}:
            environment.observed["takeovers by the other reporter"] += 1
            environment.say(f"{now} took over from {active}")
        active = now or active
        await asyncio.sleep(POLL_SECONDS)


async def active_reporter(environment: Environment) -> str | None:
    """Return the process whose connection the broker delivers reports to; None if there is none.

    Raises:
        OSError: the management API refused, or does not answer.
    """
    ports = await management.active_consumers(environment.stack, REPORTS_QUEUE)
    return next((name for name in PROCESSES if ports & environment.ports(name, "broker")), None)
