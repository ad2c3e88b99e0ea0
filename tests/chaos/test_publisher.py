"""The publisher on a connection that breaks at the worst moments."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from local_stack.urls import Address, login_of
from metering_chaos.proxies import Proxy, open_proxies
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import INTERNAL
from rig.events import provisioned
from rig.vhost import Vhost
from rig.waiting import eventually

USER = "customer-provisioner"


@pytest.fixture
async def proxy(vhost: Vhost) -> AsyncIterator[Proxy]:
    """Return a proxy to the broker."""
    async with open_proxies(["broker"]) as proxies:
        proxies["broker"].upstream = Address.of(vhost.url(USER))
        yield proxies["broker"]


@pytest.fixture
async def publisher(vhost: Vhost, proxy: Proxy) -> AsyncIterator[Publisher]:
    """Return a publisher that reaches the broker by the proxy."""
    url = proxy.address.amqp_url(login_of(vhost.url(USER)), vhost.name)
    connected = await Publisher.connect(url, name="test")
    yield connected
    await connected.close()


def publication() -> Publication:
    """Return something to publish."""
    event = provisioned(uuid4(), "cus_ada")
    return Publication(INTERNAL, event.type, Message.of(event))


async def published(publisher: Publisher) -> bool:
    """Publish once; tell whether it was confirmed."""
    return await publisher.publish_all([publication()]) == [None]


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
async def test_a_connection_cut_again_while_it_comes_back_is_made_anew(
    publisher: Publisher, proxy: Proxy, pause: float
) -> None:
    """Cut it as soon as it stands again, at various points of its opening: it publishes later."""
    for _ in range(5):
        proxy.reset()
        await eventually(lambda: count(proxy), bool, within=20, every=0.001)
        await asyncio.sleep(pause)

    assert await eventually(lambda: published(publisher), bool, within=20, every=0.2)
    assert publisher.connected


async def test_a_channel_lost_on_a_connection_that_stands_is_made_anew(
    publisher: Publisher,
) -> None:
    """A broker's error, or a library's, may close the channel alone: that must not be for good."""
    assert publisher._channel is not None
    await publisher._channel.close()

    assert await eventually(lambda: published(publisher), bool, within=20, every=0.2)


async def count(proxy: Proxy) -> int:
    """Return how many connections there are."""
    return proxy.connections
