"""Waiting for a condition, with a deadline instead of a sleep."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool],
    *,
    within: float = 20.0,
    every: float = 0.05,
) -> T:
    """Ask until the answer ``holds`` and return it; fail with the last answer after ``within``."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        answer = await ask()
        if holds(answer):
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"still {answer!r} after {within} s")
        await asyncio.sleep(every)
