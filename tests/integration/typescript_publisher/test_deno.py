"""Deno, and the edge function of the package's README on it."""

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest

from integration.typescript_publisher.hosts import USER, install_deno, settings, write_snippets
from integration.typescript_publisher.killed_api import publish_while_the_api_is_killed
from local_stack.ports import LOOPBACK, free_ports
from support.events_api import EventsApi
from support.node import PUBLISHER, PUBLISHER_NAME
from support.pages import blocks
from support.waiting import eventually

EDGE_RUNTIME = """\
globalThis.EdgeRuntime = {
  waitUntil: (promise) => void promise.then(() => console.log("delivered")),
};
await import("./supabase/functions/run-tool/index.ts");
"""
"""What Supabase gives to a function (https://supabase.com/docs/guides/functions/background-tasks)."""


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_no_event_is_lost_on_deno(events_api: EventsApi, tmp_path: Path) -> None:
    """As on Node."""
    await publish_while_the_api_is_killed(events_api, tmp_path, *install_deno(tmp_path))


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_edge_function_lives_until_its_event_is_confirmed(
    events_api: EventsApi, tmp_path: Path
) -> None:
    """The promise that it gives to `EdgeRuntime.waitUntil` ends then."""
    deno = install_deno(tmp_path)
    config = _edge_function(tmp_path)
    (tmp_path / "main.ts").write_text(EDGE_RUNTIME)
    [port] = free_ports(None)
    process = await asyncio.create_subprocess_exec(
        *(*deno, "--config", config, "main.ts"),
        cwd=tmp_path,
        env={
            **settings(events_api, tmp_path),
            "DENO_SERVE_ADDRESS": f"tcp:{LOOPBACK}:{port}",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        event_id = await eventually(lambda: _call(port), bool, within=60)
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"delivered\n"
        assert await events_api.queued() == {event_id: "tool.executed.v1"}
    finally:
        process.kill()
        await process.wait()


def _edge_function(application: Path) -> Path:
    """Write the function and its `deno.json` as in the README, with a copy of the package.

    The package itself is removed, so that only the copy can be found.
    """
    [deno_json] = blocks(PUBLISHER / "README.md", "json")
    write_snippets(application, "supabase/functions/run-tool/index.ts")
    installed = application / "node_modules" / PUBLISHER_NAME
    copy = application / "supabase/functions/_shared/metering"
    shutil.copytree(installed / "dist", copy)
    shutil.rmtree(installed)
    config = application / "supabase/functions/run-tool/deno.json"
    config.write_text(deno_json)
    return config


async def _call(port: int) -> str | None:
    """Call the function and return its event's id, or nothing while it does not listen."""
    body = {"user_id": USER, "tool_name": "forecast"}
    try:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"http://{LOOPBACK}:{port}", json=body) as answer,
        ):
            event_id: str = (await answer.json())["id"]
            return event_id
    except aiohttp.ClientConnectionError:
        return None
