"""The lifecycle of a service: start its loops, restart those that end, and drain on shutdown."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import structlog

from nexus_messaging.backoff import Backoff
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.errors import where
from nexus_service.errors import StoppedError

MAX_PAUSE: Final = 30.0
"""Seconds before a loop that failed is started again, however often it did."""

MAX_START_PAUSE: Final = 5.0
"""Seconds between attempts to start, while what the service needs is away."""

DRAIN_SHARE: Final = 0.8
"""The share of the grace period for draining; the rest is for handing back and closing."""

RESUME_SIGNAL: Final = signal.SIGUSR1
"""Not SIGHUP, because a terminal sends that when it is closed."""

log = structlog.get_logger()

Loop = Callable[[], Awaitable[None]]


T = TypeVar("T")


class Drainable(Protocol):
    """A consumer that finishes or hands back its work before the service exits."""

    async def drain(self, seconds: float) -> None:
        """Accept no new work, and have none left after about ``seconds``."""


def stop_on_signal(stop: asyncio.Event) -> None:
    """Set ``stop`` on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Ignored until ``resume_on_signal``: the default action is to end the process.
    loop.add_signal_handler(RESUME_SIGNAL, lambda: None)


def resume_on_signal(resume: Callable[[], None]) -> None:
    """Call ``resume`` on each SIGUSR1."""
    asyncio.get_running_loop().add_signal_handler(RESUME_SIGNAL, resume)


async def wait_until_available(
    what: str,
    connect: Callable[[], Awaitable[T]],
    errors: tuple[type[Exception], ...],
    stop: asyncio.Event,
) -> T:
    """Call ``connect`` until it raises none of ``errors``: a service may start before its broker.

    Raises:
        StoppedError: ``stop`` was set first.
    """
    backoff = Backoff(0.2, MAX_START_PAUSE)
    while not stop.is_set():
        try:
            return await connect()
        except errors as error:
            log.warning("waiting_at_start", what=what, cause=f"{type(error).__name__}: {error}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), backoff.next())
    raise StoppedError


async def run_until(
    stop: asyncio.Event,
    loops: Mapping[str, Loop],
    drained: Sequence[Drainable],
    *,
    grace: float,
) -> None:
    """Run ``loops`` until ``stop`` is set, then drain within ``grace`` seconds and cancel them."""
    tasks = [
        asyncio.create_task(keep_running(name, loop), name=name) for name, loop in loops.items()
    ]
    try:
        await stop.wait()
        log.info("stopping", grace_seconds=grace)
        await _drain(drained, grace)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    log.info("stopped")


async def _drain(drained: Sequence[Drainable], grace: float) -> None:
    try:
        async with asyncio.timeout(grace):
            results = await asyncio.gather(
                *(each.drain(grace * DRAIN_SHARE) for each in drained), return_exceptions=True
            )
    except TimeoutError:
        log.warning("grace_exceeded")
        return
    for result in results:
        if isinstance(result, BaseException):
            log.warning("drain_failed", cause=type(result).__name__)


async def keep_running(name: str, loop: Loop) -> None:
    """Restart ``loop`` whenever it ends, with a backoff that grows while it keeps failing."""
    backoff = Backoff(0.5, MAX_PAUSE)
    while True:
        began = asyncio.get_running_loop().time()
        try:
            with stray_cancellation_as_error():
                await loop()
        except Exception as error:  # a loop that ended silently would stop billing
            log.warning("loop_failed", loop=name, cause=type(error).__name__, where=where(error))
        if asyncio.get_running_loop().time() - began > MAX_PAUSE:
            backoff.reset()
        await backoff.wait()
