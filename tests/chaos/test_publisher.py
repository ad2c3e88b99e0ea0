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
from support.events import provisioned
from support.vhost import Vhost
from support.waiting import eventually

USER = "customer-provisioner"


@pytest.fixture
async def proxy(vhost: Vhost) -> AsyncIterator[Proxy]:
    """Return a proxy in front of the broker."""
    async with open_proxies(["broker"]) as proxies:
        proxies["broker"].upstream = Address.of(vhost.url(USER))
        yield proxies["broker"]


@pytest.fixture
async def publisher(vhost: Vhost, proxy: Proxy) -> AsyncIterator[Publisher]:
    """Return a publisher that reaches the broker through the proxy."""
    url = proxy.address.amqp_url(login_of(vhost.url(USER)), vhost.name)
    connected = await Publisher.connect(url, name="test")
    yield connected
    await connected.close()


async def publish(publisher: Publisher) -> bool:
    """Publish an event; return whether it was confirmed."""
    event = provisioned(uuid4(), "cus_ada")
    return await publisher.publish_all([Publication(INTERNAL, event.type, Message.of(event))]) == [
        None
    ]


async def connections(proxy: Proxy) -> int:
    """Return how many connections the proxy carries."""
    return proxy.connections


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
async def test_connection_cut_while_it_reopens_is_replaced(
    publisher: Publisher, proxy: Proxy, pause: float
) -> None:
    """It is cut ``pause`` seconds into each opening, and carries publishes afterwards."""
    for _ in range(5):
        proxy.reset()
        await eventually(lambda: connections(proxy), bool, within=20, every=0.001)
        await asyncio.sleep(pause)

    assert await eventually(lambda: publish(publisher), bool, within=20, every=0.2)
    assert publisher.connected


async def test_channel_closed_on_an_open_connection_is_replaced(publisher: Publisher) -> None:
    """An error of the broker or of the library may close the channel alone."""
    assert publisher._channel is not None
    await publisher._channel.close()

    assert await eventually(lambda: publish(publisher), bool, within=20, every=0.2)
