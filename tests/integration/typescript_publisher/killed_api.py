"""A host publishes all the time, and the events API is killed and started again."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from integration.typescript_publisher.hosts import FOLDER, settings
from support.events_api import EventsApi

MANY: Final = 50
"""Events, more than one batch has while the API answers."""
LINE_BYTES: Final = 16 * 1024 * 1024
"""Of the last line, which has 60 bytes for each event; there are thousands on a slow machine."""


async def publish_while_the_api_is_killed(
    events_api: EventsApi, application: Path, *runtime: str | Path
) -> None:
    """Run ``host.mjs`` in ``application``: no event is lost, and the host ends by itself."""
    host = shutil.copy(FOLDER / "host.mjs", application)
    process = await asyncio.create_subprocess_exec(
        *(*runtime, host),
        cwd=application,
        env=settings(events_api, application),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    await _until(process.stdout, lambda state: state["confirmed"] > MANY)
    await events_api.kill()
    await _until(process.stdout, lambda state: state["waiting"] > MANY and "problem" in state)
    await events_api.start()
    await _until(process.stdout, lambda state: "problem" not in state)
    process.stdin.close()
    end = await _until(process.stdout, lambda state: "types" in state)

    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert (end["confirmed"], end["waiting"], end["lost"]) == (len(end["types"]), 0, {})
    assert await events_api.queued() == end["types"]


async def _until(
    output: asyncio.StreamReader, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the first state that ``holds``."""
    async with asyncio.timeout(30):
        async for line in output:
            state: dict[str, Any] = json.loads(line)
            if holds(state):
                return state
    raise AssertionError("the host ended before")
