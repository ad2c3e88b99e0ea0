"""Waiting for a condition with a deadline instead of a sleep, and work at a steady rate."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool],
    *,
    within: float = 20.0,
    every: float = 0.05,
) -> T:
    """Ask every ``every`` seconds until the answer ``holds``, and return the answer.

    Raises:
        AssertionError: the last answer after ``within`` seconds does not hold.
    """
    deadline = asyncio.get_running_loop().time() + within
    while True:
        answer = await ask()
        if holds(answer):
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"still {answer!r} after {within} s")
        await asyncio.sleep(every)


@asynccontextmanager
async def repeated(work: Callable[[], Awaitable[None]], every: float) -> AsyncIterator[None]:
    """Do ``work`` every ``every`` seconds while the context lasts; raise its error at the end."""
    stop = asyncio.Event()

    async def repeat() -> None:
        began, number = time.monotonic(), 0
        while not stop.is_set():
            await work()
            number += 1
            await asyncio.sleep(began + number * every - time.monotonic())

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        stop.set()
        await repeating
