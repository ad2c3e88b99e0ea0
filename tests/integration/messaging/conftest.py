"""A vhost whose retry tiers wait next to nothing, and a consumer of each kind in it."""

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.messaging.bench import DEAD_LETTERS, MIN_SCALE, QUEUE, Bench
from local_stack.servers import Broker
from nexus_messaging.topology import TIERS
from support.vhost import Vhost

LEFT_BEHIND = (*(tier.name for tier in TIERS), QUEUE, DEAD_LETTERS)


async def made(broker: Broker, password: str) -> Vhost:
    """Create a vhost with the topology, every tier as short as it can be."""
    vhost = Vhost(broker, f"messaging-{secrets.token_hex(4)}", password)
    await vhost.create(tier_scale=MIN_SCALE)
    return vhost


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def lasting(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return one vhost for all tests that leave its queues where they are."""
    vhost = await made(broker, password)
    yield vhost
    await vhost.delete()


@pytest.fixture
async def vhost(lasting: Vhost) -> AsyncIterator[Vhost]:
    """Return a vhost whose queues are empty."""
    yield lasting
    async with lasting.channel() as channel:
        for name in LEFT_BEHIND:
            queue = await channel.get_queue(name, ensure=False)
            await queue.purge()


@pytest.fixture
async def own_vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost for a test that takes it apart."""
    vhost = await made(broker, password)
    yield vhost
    await vhost.delete()


@pytest.fixture(params=["batch", "single"])
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a bench of each kind of consumer in turn: what they promise is the same."""
    return Bench(vhost, request.param)


@pytest.fixture
def batch_bench(vhost: Vhost) -> Bench:
    """Return a bench of the batch consumer, for what only batches have."""
    return Bench(vhost, "batch")
