"""Node and the events API."""

import asyncio
from pathlib import Path

import pytest

from integration.typescript_publisher.hosts import settings, write_snippets
from integration.typescript_publisher.killed_api import publish_while_the_api_is_killed
from nexus_messaging.topology import USER_CREATED_QUEUE
from support.events_api import EventsApi
from support.node import NODE, install_publisher


async def test_no_event_is_lost_on_node(events_api: EventsApi, tmp_path: Path) -> None:
    """The API is killed; when it is back, the client delivers what waited."""
    install_publisher(tmp_path)

    await publish_while_the_api_is_killed(events_api, tmp_path, NODE)


@pytest.mark.long
async def test_script_of_the_readme_publishes_and_ends(
    events_api: EventsApi, tmp_path: Path
) -> None:
    """Without a call of `flush` or `close`."""
    install_publisher(tmp_path)
    write_snippets(tmp_path, "hub.ts")
    script = (tmp_path / "hub.ts").rename(tmp_path / "hub.mjs")  # it has no types of its own

    process = await asyncio.create_subprocess_exec(
        *(NODE, script), env=settings(events_api, tmp_path)
    )

    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert await events_api.vhost.depth(USER_CREATED_QUEUE) == 1
