"""`usage-ingest events-api` as a process of its own."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from local_stack.catalogue import EVENTS_API, base_environment, events_api_command
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from metering_chaos.environment import in_thread
from nexus_messaging.topology import USER_CREATED_QUEUE
from support.commands import in_a_pipe
from support.events import user_created
from support.leak_check import leaks, logs_of, metrics_of
from support.line import Line
from support.memory import MAX_WHEN_IDLE, resident_mib
from support.metrics import sample
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import KEY, KEYS_ENTRY, as_json

EMAIL = "s3cret@example.com"


@pytest.fixture
async def process(vhost: Vhost, tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, URL]]:
    """Return the process, which is not running yet, and the address where it looks for a broker."""
    port, broker_port = free_ports(None, None)
    broker = URL(vhost.url("publisher")).with_port(broker_port)
    server = ServerProcess(
        EVENTS_API,
        events_api_command(),
        url=f"http://{LOOPBACK}:{port}",
        ready_path="/healthz",
        log=tmp_path / "events-api.log",
        env={
            **base_environment(),
            "AMQP_URL": str(broker),
            "API_KEYS": KEYS_ENTRY.configured,
            "HTTP_PORT": str(port),
        },
        grace=15,
        on_start=lambda: None,
    )
    yield server, broker
    server.stop()


async def status(url: str) -> int:
    """Return the status of a page."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


async def post(url: str, body: str) -> int:
    """Publish by HTTP; return the answer's status."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/events", data=body) as answer,
    ):
        return answer.status


async def test_it_runs_without_broker_and_database_and_ends_in_order(
    process: tuple[ServerProcess, URL], vhost: Vhost
) -> None:
    """Alive and not ready, then ready, then SIGTERM; its output holds no address and no key."""
    server, broker = process
    body = json.dumps(as_json(user_created(uuid4(), email=EMAIL)))
    await in_thread(server.launch_and_wait)
    assert await status(f"{server.url}/readyz") == 503
    assert await post(server.url, body) == 503

    assert broker.port is not None
    async with Line.to(URL(vhost.url("publisher")), port=broker.port):
        await eventually(lambda: status(f"{server.url}/readyz"), lambda found: found == 200)
        assert resident_mib(server) < MAX_WHEN_IDLE
        assert await post(server.url, body) == 202
        await eventually(lambda: vhost.depth(USER_CREATED_QUEUE), bool)
        published = 'events_api_events_total{type="user.created.v1"}'
        assert await sample(server.url, published) == 1
        output = {**await in_thread(lambda: metrics_of([server])), **logs_of([server])}
        assert server.pid is not None
        os.kill(server.pid, signal.SIGTERM)
        assert await in_thread(lambda: server.wait_for_exit(10))

    assert server.exit_code == 0
    output |= logs_of([server])
    assert leaks(output, {EMAIL, KEY, vhost.password}) == []
    assert '"event": "stopped"' in output[f"log of {EVENTS_API}"]


async def test_a_new_key_is_printed_once_and_configured_as_printed(vhost: Vhost) -> None:
    """`make-api-key` needs no settings; `--check` takes its entry, and finds the broker."""
    made = await in_a_pipe(
        "usage_ingest", "make-api-key", "hub", "--source", "hub", "--type", "tool.executed"
    )
    key, entry = (line.rpartition(" ")[2] for line in made.raw.splitlines()[:2])
    settings = {"AMQP_URL": vhost.url("publisher"), "API_KEYS": entry}
    checked, wrong = await asyncio.gather(
        in_a_pipe("usage_ingest", EVENTS_API, "--check", **settings),
        in_a_pipe("usage_ingest", EVENTS_API, "--check", **settings | {"API_KEYS": key}),
    )

    assert entry.startswith("hub:")
    assert key not in entry
    assert (checked.code, wrong.code) == (0, 2)
    assert "API_KEYS" in wrong.output
    assert key not in wrong.output
