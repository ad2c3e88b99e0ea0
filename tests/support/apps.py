"""Services in this process: their loops run as tasks of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nexus_service.app import App
from nexus_service.lifecycle import keep_running


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """Run every loop of ``apps`` while the context lasts; they are cancelled at its end.

    Raises:
        AssertionError: a loop ended before.
    """
    loops = {f"{app.name} {name}": loop for app in apps for name, loop in app.loops.items()}
    tasks = [asyncio.create_task(keep_running(name, loop)) for name, loop in loops.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in ended} == {asyncio.CancelledError}, ended
