"""A RabbitMQ node for the tests of the topology, and vhosts in it."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import aiohttp
import pytest

from integration.topology.broker import Broker, administration
from local_stack.rabbitmq import RabbitNode
from nexus_broker_admin.management import connect


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """Run one RabbitMQ node for all tests."""
    with RabbitNode.start(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
async def bare(node: RabbitNode) -> AsyncIterator[Broker]:
    """Return a vhost that does not exist yet, and delete it after the test."""
    vhost = f"metering-{uuid.uuid4().hex[:8]}"
    async with connect(administration(node)) as management:
        broker = Broker(node, vhost, management)
        yield broker
        with suppress(aiohttp.ClientResponseError):
            await broker.ask("admin", "DELETE", "vhosts/{vhost}")


@pytest.fixture
async def broker(bare: Broker) -> Broker:
    """Return a vhost with the metering topology."""
    await bare.apply()
    return bare
