"""A Next.js application with the files of the package's README."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from integration.typescript_publisher.hosts import USER, install, settings, write_snippets
from local_stack.ports import LOOPBACK, free_ports
from support.events_api import EventsApi
from support.node import NODE
from support.waiting import eventually

BUILD_SECONDS = 600
ANSWER_SECONDS = 2.0
"""Of a route that publishes; it takes milliseconds, but for a machine that does much else."""


@pytest.fixture
async def route(events_api: EventsApi, tmp_path: Path) -> AsyncIterator[str]:
    """Return the address of a route that publishes to ``events_api``, in production mode."""
    install("nextjs", tmp_path)
    # The build checks the types of every file, so of the one for Node, too.
    write_snippets(tmp_path, "lib/metering.ts", "app/api/mcp/route.ts", "hub.ts")
    [port] = free_ports(None)
    environment = settings(events_api, tmp_path)
    build = await _next(tmp_path, environment, "build")
    assert await asyncio.wait_for(build.wait(), BUILD_SECONDS) == 0
    server = await _next(tmp_path, environment, "start", "-H", LOOPBACK, "-p", str(port))
    try:
        yield f"http://{LOOPBACK}:{port}/api/mcp"
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 30)


@pytest.mark.long
@pytest.mark.timeout(1500)
async def test_route_answers_while_the_api_is_away(events_api: EventsApi, route: str) -> None:
    """What it published meanwhile arrives once the API is back."""
    async with aiohttp.ClientSession() as client:

        async def call() -> str:
            timeout = aiohttp.ClientTimeout(ANSWER_SECONDS)
            body = {"user_id": USER, "tool_name": "forecast"}
            async with client.post(route, json=body, timeout=timeout) as answer:
                assert answer.status == 200
                event_id: str = (await answer.json())["id"]
                return event_id

        await eventually(lambda: _answers(client, route), bool, within=60)
        ids = {await call()}
        await eventually(events_api.depth, lambda depth: depth == 1)
        await events_api.kill()
        ids |= {await call() for _ in range(20)}
        await events_api.start()
        ids.add(await call())

        await eventually(events_api.depth, lambda depth: depth >= len(ids), within=60)
    assert await events_api.queued() == dict.fromkeys(ids, "tool.executed.v1")
    assert all(UUID(each).version == 4 for each in ids)


async def _next(
    application: Path, environment: dict[str, str], *arguments: str
) -> asyncio.subprocess.Process:
    program = application / "node_modules/next/dist/bin/next"
    return await asyncio.create_subprocess_exec(
        NODE, program, *arguments, cwd=application, env=environment
    )


async def _answers(client: aiohttp.ClientSession, route: str) -> bool:
    try:
        async with client.get(route) as answer:
            return answer.status == 405
    except aiohttp.ClientConnectionError:
        return False
