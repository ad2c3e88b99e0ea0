"""Waiting at the start for what others provide, and stopping to wait when asked to end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import aiormq
import structlog

from nexus_database import DatabaseUnavailableError
from nexus_messaging.errors import PublishError

LONGEST_PAUSE: Final = 10.0

AWAY: Final = (
    PublishError,
    DatabaseUnavailableError,
    aiormq.exceptions.AMQPError,
    OSError,
    TimeoutError,
)
"""How a broker or a database that is not there yet shows itself."""

T = TypeVar("T")

log = structlog.get_logger()


class StoppedError(Exception):
    """The service was told to end before it was up."""


async def until_there(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat ``attempt``, waiting longer each time, until it meets what it needs."""
    pause = 0.5
    while True:
        try:
            return await attempt()
        except AWAY as error:
            log.warning("waiting", what=what, cause=f"{type(error).__name__}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns.

    Raises:
        StoppedError: ``stop`` was set first.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise StoppedError
        return await working
    finally:
        stopping.cancel()
        working.cancel()
