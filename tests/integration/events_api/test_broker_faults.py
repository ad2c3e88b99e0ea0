"""A real broker is killed and in alarm, while a client publishes by HTTP."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.rabbitmq import RabbitNode
from metering_chaos.environment import in_thread
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import Api, as_json, running_api

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RabbitNode]:
    """Return a broker of the test's own."""
    with RabbitNode.start(tmp_path / "rabbitmq") as started:
        yield started


async def publisher_on(node: RabbitNode) -> tuple[Vhost, Publisher]:
    """Return a vhost with the topology, and a publisher that connects to it by itself."""
    vhost = Vhost(node, "metering", secrets.token_hex(16))
    await vhost.create(tier_scale=1.0)
    return vhost, Publisher.connect_later(vhost.url("publisher"), name="events-api")


async def status(api: Api, *ids: str) -> int:
    """Publish runs with these ids; return the answer's status."""
    return (await api.post([as_json(tool_run()) | {"id": each} for each in ids])).status


async def test_every_accepted_event_survives_kills_of_the_broker(node: RabbitNode) -> None:
    """Batches are repeated whole until they are accepted; each of their events is in the queue."""
    vhost, publisher = await publisher_on(node)
    accepted: set[str] = set()
    refused, done = 0, asyncio.Event()

    async with running_api(publisher) as api:

        async def publish() -> None:
            nonlocal refused
            while not done.is_set():
                ids = [str(tool_run().id) for _ in range(50)]
                while await status(api, *ids) != 202:
                    refused += 1
                    await asyncio.sleep(0.05)
                accepted.update(ids)

        publishing = asyncio.create_task(publish())
        for _ in range(2):
            await accepts(accepted, 100)
            await in_thread(node.kill)
            await in_thread(node.restart)
        await accepts(accepted, 1)
        done.set()
        await publishing

    stored = {message.message_id for message in await vhost.peek(TOOL_EXECUTED_QUEUE)}
    assert accepted <= stored
    assert refused > 0


async def test_an_alarm_is_503_in_time_and_ends_by_itself(node: RabbitNode) -> None:
    """The broker neither confirms nor refuses; the API answers, and goes on after the alarm."""
    _, publisher = await publisher_on(node)
    async with running_api(publisher) as api:
        await eventually(lambda: status(api, str(tool_run().id)), lambda found: found == 202)
        await in_thread(lambda: node.ctl("set_vm_memory_high_watermark", "0.00001"))
        ids = [str(tool_run().id) for _ in range(300)]
        await eventually(lambda: status(api, *ids), lambda found: found == 503, within=60)
        began = asyncio.get_running_loop().time()
        again = await status(api, *ids)
        took = asyncio.get_running_loop().time() - began
        await in_thread(lambda: node.ctl("set_vm_memory_high_watermark", "0.6"))
        await eventually(lambda: status(api, *ids), lambda found: found == 202, within=60)

    assert again == 503
    assert took < 8


async def accepts(ids: set[str], more: int) -> None:
    """Wait until ``more`` ids have come."""
    wanted = len(ids) + more

    async def number() -> int:
        return len(ids)

    await eventually(number, lambda found: found >= wanted, within=60)
