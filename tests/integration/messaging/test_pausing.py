"""What an outage and a lost connection leave behind: nothing in hand, and no pause of their own."""

import asyncio

import pytest

from integration.messaging.bench import PREFETCH, QUEUE, Bench, DownError, close_connections, well
from nexus_messaging import backpressure
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

MESSAGES = 2 * PREFETCH


async def fail_down(_delivery: Delivery) -> Outcome:
    """Fail as in an outage."""
    raise DownError


async def begin_an_outage(bench: Bench) -> None:
    """Publish messages that can't be handled, before anything is consumed.

    One that is published in the moment in which consuming is cancelled counts as returned.
    """
    bench.down, bench.behave = True, fail_down
    await bench.vhost.publish(*(tool_run() for _ in range(MESSAGES)))


async def sit_in_an_outage(bench: Bench) -> None:
    """Wait until all messages are handed back."""
    await eventually(bench.probed, lambda probes: probes >= 1)
    await eventually(bench.waiting, lambda waiting: waiting == MESSAGES)


def end(bench: Bench) -> None:
    """Let the outage be over."""
    bench.down, bench.behave = False, well


async def not_acked(bench: Bench) -> int:
    """Return how many deliveries are in hand or wait for their ack."""
    assert bench.consumer is not None
    channel = bench.consumer._channel
    return 0 if channel is None else len(channel.unacked)


async def test_stopping_in_an_outage_takes_no_grace(bench: Bench) -> None:
    """Nothing is in hand that could still end: a deploy does not wait for it."""
    clock = asyncio.get_running_loop().time

    await begin_an_outage(bench)
    async with bench.consuming(grace=60):
        await sit_in_an_outage(bench)
        began = clock()

    assert clock() - began < 30


async def test_connection_lost_in_an_outage_brings_nothing_back(bench: Bench) -> None:
    """All was acked when it was handed back; else each message would come twice, and counted."""
    await begin_an_outage(bench)
    async with bench.consuming():
        await sit_in_an_outage(bench)
        # Acks rest while consuming is cancelled: before they are sent, all would come again.
        await eventually(lambda: not_acked(bench), lambda number: number == 0)
        await close_connections(bench.vhost, 2)
        end(bench)
        await bench.all_done(MESSAGES)
        await eventually(bench.waiting, lambda waiting: waiting == 0)

    assert bench.count("done") == MESSAGES
    assert {each.returned for each in bench.handled} == {0}


async def test_outage_is_shown_while_it_lasts_and_no_longer(bench: Bench) -> None:
    """The gauge of paused queues follows the consumption."""

    async def paused() -> bool:
        return bench.consumption is not None and bench.consumption.is_paused()

    await begin_an_outage(bench)
    async with bench.consuming():
        await sit_in_an_outage(bench)
        assert await paused()
        end(bench)
        await bench.all_done(MESSAGES)
        assert not await paused()


async def test_after_a_lost_connection_many_are_in_hand_again(bench: Bench) -> None:
    """One at first, and as many as are prefetched once that one ended well."""
    released = asyncio.Event()
    async with bench.consuming():
        await bench.vhost.publish(tool_run())
        await bench.all_done(1)
        await close_connections(bench.vhost, 2)
        first = len(bench.handled) + 1

        async def hang_but_for_the_first(_delivery: Delivery) -> Outcome:
            if len(bench.handled) > first:
                await released.wait()
            return Done()

        bench.behave = hang_but_for_the_first
        await bench.vhost.publish(*(tool_run() for _ in range(MESSAGES + 1)))
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == PREFETCH)
        released.set()
        await bench.all_done(MESSAGES + 2)


async def test_reading_goes_on_as_soon_as_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the connection would count as silent."""
    monkeypatch.setattr(backpressure, "MAX_UNACKED_BYTES", 1)
    monkeypatch.setattr(backpressure, "PAUSED_READ_INTERVAL", 600.0)

    async with bench.consuming():
        await bench.vhost.publish(*(tool_run() for _ in range(MESSAGES)))
        await bench.all_done(MESSAGES)


async def test_after_an_outage_many_are_handled_at_once_again(vhost: Vhost) -> None:
    """One at first, and one more for each that ends well."""
    bench = Bench(vhost, "single")
    released = asyncio.Event()

    async def hang(_delivery: Delivery) -> Outcome:
        await released.wait()
        return Done()

    await begin_an_outage(bench)
    async with bench.consuming():
        await sit_in_an_outage(bench)
        end(bench)
        await bench.all_done(MESSAGES)
        tried = len(bench.handled)
        bench.behave = hang
        await vhost.publish(*(tool_run() for _ in range(PREFETCH)))
        await eventually(bench.tried, lambda now: now == tried + PREFETCH)
        released.set()
        await bench.all_done(MESSAGES + PREFETCH)
