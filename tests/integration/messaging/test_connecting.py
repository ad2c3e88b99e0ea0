"""Reaching the broker past addresses that are silent, each within its own time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from integration.messaging.bench import QUEUE, SERVICE, Bench
from nexus_messaging.connecting import ADDRESS_TIMEOUT, BrokerUnreachableError, connect
from nexus_messaging.consumer import Consumer
from nexus_messaging.publisher import Publisher
from nexus_service.connections import UNCONNECTED_LIMIT, Connections
from support.events import tool_run
from support.hosts import OTHER_LOOPBACK, resolve, silent_server, unreachable_port
from support.vhost import Vhost
from support.waiting import eventually

NAME = "broker.example"


@pytest.fixture
async def silent(request: pytest.FixtureRequest, vhost: Vhost) -> AsyncIterator[int]:
    """Hold the broker's port on another loopback address, in the way that is asked for."""
    port = URL(vhost.url(SERVICE)).port
    assert port is not None
    if request.param == "unreachable_port":
        with unreachable_port(port=port):
            yield port
    else:
        async with silent_server(port=port):
            yield port


@pytest.mark.parametrize("silent", ["unreachable_port", "silent_server"], indirect=True)
async def test_a_name_whose_first_address_is_silent_is_reached_by_the_next(
    vhost: Vhost, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it takes no connection or says nothing on it."""
    resolve(monkeypatch, {NAME: (OTHER_LOOPBACK, "127.0.0.1")})

    async with asyncio.timeout(ADDRESS_TIMEOUT + 5):
        connection = await connect(
            str(URL(vhost.url(SERVICE)).with_host(NAME).with_port(silent)), name="test"
        )

    assert not connection.amqp.is_closed
    await connection.close()


@pytest.mark.parametrize("silent", ["unreachable_port", "silent_server"], indirect=True)
async def test_a_list_of_hosts_is_gone_through_for_publishing_and_consuming(
    vhost: Vhost, silent: int
) -> None:
    """The first host is silent; both connections reach the second."""
    url = vhost.url(SERVICE).replace("@", f"@{OTHER_LOOPBACK}:{silent},", 1)
    consumer = Consumer(url, QUEUE, prefetch=1, name="test")
    consumer.start_consuming()
    receiving = asyncio.create_task(consumer.run())

    publisher = await Publisher.connect(url, name="test")
    await eventually(lambda: consuming(consumer), bool)

    assert publisher.connected
    receiving.cancel()
    await asyncio.wait({receiving})
    await publisher.close()


async def test_a_broker_that_is_silent_everywhere_is_given_up_within_its_time() -> None:
    """The error names what happened at each address, once, and not the password."""
    async with silent_server("127.0.0.1") as first, silent_server() as second:
        url = f"amqp://u:secret@127.0.0.1:{first.port},{OTHER_LOOPBACK}:{second.port}/v"
        async with asyncio.timeout(2 * ADDRESS_TIMEOUT + 5):
            with pytest.raises(BrokerUnreachableError, match=r"^not reachable: TimeoutError$"):
                await connect(url, name="test")


async def test_an_unreachable_broker_is_told_by_readiness_at_once_and_later_by_liveness(
    vhost: Vhost,
) -> None:
    """A restart is worth trying after minutes, and only while consuming is wanted at all."""
    async with silent_server("127.0.0.1") as silent:
        publisher = await Publisher.connect(vhost.url(SERVICE), name="test")
        consumer = Consumer(f"amqp://u:p@127.0.0.1:{silent.port}/v", QUEUE, prefetch=1, name="test")
        connections = Connections(publisher, [consumer])
        assert await connections.fault() is None
        consumer.start_consuming()
        receiving = asyncio.create_task(consumer.run())

        fault = await eventually(connections.fault, lambda text: "TimeoutError" in (text or ""))
        assert fault == f"{QUEUE} is not consumed: not reachable: TimeoutError"
        assert await connections.liveness_fault() is None
        consumer._unconnected_since -= UNCONNECTED_LIMIT
        stalled = await connections.liveness_fault()
        assert stalled is not None
        assert stalled.startswith(f"{QUEUE}: not connected for 18")
        await consumer.cancel_consuming()
        assert await connections.liveness_fault() is None
        receiving.cancel()
        await asyncio.wait({receiving})
        await publisher.close()


async def test_a_missing_queue_is_told_by_readiness(own_vhost: Vhost) -> None:
    """And again as long as it is missing; once it is there, it is consumed."""
    bench = Bench(own_vhost, "single")
    await own_vhost.ask("DELETE", "queues/{vhost}/" + QUEUE)

    async with bench.consuming():
        fault = await eventually(lambda: fault_of(bench), lambda text: "no such" in (text or ""))
        assert fault == f"{QUEUE} is not consumed: there is no such queue"
        await own_vhost.create(tier_scale=1.0)
        await own_vhost.publish(tool_run())
        await bench.all_done(1)
        assert await fault_of(bench) is None


async def fault_of(bench: Bench) -> str | None:
    """Return what the consumer says is wrong."""
    return None if bench.consumer is None else bench.consumer.fault()


async def consuming(consumer: Consumer) -> bool:
    """Return whether the broker would deliver."""
    return consumer.consuming
