"""Floods of bad messages: the queue is not emptied into its dead-letter queue."""

import asyncio
from functools import partial
from operator import eq

import pytest

from integration.messaging.bench import DEAD_LETTERS, QUEUE, Bench, close_connections
from nexus_contracts import ToolExecuted, read_event
from nexus_messaging.flood import FloodLimit
from nexus_messaging.message import Delivery
from nexus_messaging.retry import ATTEMPT, Done, Outcome
from nexus_messaging.topology import EVENTS
from rig.events import tool_run
from rig.vhost import Vhost, message
from rig.waiting import eventually

LIMIT = FloodLimit(0.5, 200)
MOST = LIMIT.most + 1
"""Dead letters of one stop: the last of them is what shows that it is a flood."""

KEY = "tool.executed.v1"
BAD = 5000
KINDS = ("batch", "single")


async def read(delivery: Delivery) -> Outcome:
    """Handle a delivery by reading it, as every service does first."""
    read_event(delivery.message.body, [ToolExecuted])
    return Done()


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a bench of each kind of consumer that lets few dead letters through."""
    flooded = Bench(vhost, request.param, LIMIT)
    flooded.behave = read
    return flooded


async def publish_mixed(vhost: Vhost, bad: int, good: int = 0) -> None:
    """Publish good messages evenly among unreadable ones."""
    messages = [message(tool_run()) for _ in range(bad + good)]
    spared = {number * (bad + good) // good for number in range(good)}
    for number, each in enumerate(messages):
        if number not in spared:
            each.body = b"{"
    async with vhost.channel() as channel:
        exchange = await channel.get_exchange(EVENTS, ensure=False)
        for begin in range(0, len(messages), 500):
            some = messages[begin : begin + 500]
            await asyncio.gather(*(exchange.publish(each, KEY) for each in some))


async def stops(bench: Bench) -> str:
    """Wait until the consumption is stopped, nothing is on its way any more, and say why."""
    why = await eventually(bench.stopped, lambda told: told is not None)
    await eventually(lambda: consumers(bench.vhost), lambda number: number == 0)
    return why or ""


async def consumers(vhost: Vhost) -> int:
    """Return how many consumers the broker sees on the queue."""
    async with vhost.channel() as channel:
        declared = await channel.get_queue(QUEUE)
        return declared.declaration_result.consumer_count or 0


@pytest.mark.timeout(240)
async def test_a_flood_stops_the_consumer_and_stays_in_its_queue(bench: Bench) -> None:
    """Of 5,000 bad messages the dead-letter queue gets no more than the window holds.

    The good ones before the stop are handled; all the rest waits, and nothing is lost.
    """
    good = 250
    async with bench.consuming():
        await bench.vhost.publish(*(tool_run() for _ in range(20)))
        await bench.all_done(20)
        await publish_mixed(bench.vhost, BAD, good)
        why = await stops(bench)
        waiting = BAD - MOST + 20 + good - int(bench.count("done"))
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == waiting)
        tried, done = len(bench.handled), bench.count("done")
        await bench.vhost.publish(tool_run())
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == waiting + 1)

        assert why.endswith("messages were dead-lettered, most of them as unreadable")
        assert bench.gauge("consumption_stopped") == 1
        assert await bench.vhost.depth(DEAD_LETTERS) == MOST
        assert bench.count("dead_lettered", reason="unreadable") == MOST
    assert (len(bench.handled), bench.count("done")) == (tried, done)
    assert done > 20
    assert await bench.vhost.depth(QUEUE) == waiting + 1


async def test_what_a_flood_stopped_goes_on_when_resumed(bench: Bench) -> None:
    """One command, no restart: what was handed back comes with its counters as they were."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, 150)
        await bench.vhost.publish(*(tool_run() for _ in range(60)))
        await stops(bench)
        bench.resume()
        await bench.all_done(60)
        await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == 150)

        assert bench.gauge("consumption_stopped") == 0
        assert await bench.stopped() is None
        await bench.vhost.publish(tool_run())
        await bench.all_done(61)

    assert {each.headers[ATTEMPT] for each in bench.handled if each.came_back} <= {1}
    # What was on its way while the consumer was cancelled, the broker itself took back, once.
    assert max(each.returned for each in bench.handled) <= 1
    await eventually(bench.waiting, lambda waiting: waiting == 0)


async def test_a_flood_that_goes_on_stops_the_consumer_again(bench: Bench) -> None:
    """Resumed too early, one more window of it is dead-lettered and no more."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, 3 * MOST)
        for stop in (1, 2):
            await stops(bench)
            assert await bench.vhost.depth(DEAD_LETTERS) == stop * MOST
            if stop == 1:
                bench.resume()
                await eventually(
                    lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth > MOST
                )

    await eventually(bench.waiting, lambda waiting: waiting == MOST)


async def test_a_stopped_consumer_starts_anew_with_its_process(bench: Bench) -> None:
    """A restart resumes it, too."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, MOST + 10)
        await stops(bench)
        await bench.vhost.publish(tool_run())
    async with bench.consuming():
        await bench.all_done(1)
        await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == MOST + 10)


async def test_a_stopped_consumer_stays_stopped_when_its_connection_is_lost(bench: Bench) -> None:
    """A client library that reconnects by itself does not empty the queue after all."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, 4 * MOST)
        await stops(bench)
        await close_connections(bench.vhost, 2)
        await bench.vhost.publish(tool_run())
        await eventually(lambda: consumers(bench.vhost), lambda number: number == 0)
        await eventually(bench.waiting, lambda waiting: waiting == 3 * MOST + 1)

        assert await bench.vhost.depth(DEAD_LETTERS) == MOST
        bench.resume()
        await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == 2 * MOST)


async def test_dead_letters_moved_while_they_are_still_wrong_stop_nothing(bench: Bench) -> None:
    """They come back with their reasons, and what else is in the queue is handled."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, MOST - 1)
        await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == MOST - 1)
        for moved in (1, 2):
            await bench.vhost.move(DEAD_LETTERS, QUEUE)
            await eventually(lambda: dead_lettered(bench), partial(eq, (1 + moved) * (MOST - 1)))
        await bench.vhost.publish(tool_run())
        await bench.all_done(1)

    assert await bench.stopped() is None
    assert await bench.vhost.depth(DEAD_LETTERS) == MOST - 1


async def dead_lettered(bench: Bench) -> float:
    """Return how many messages the service has dead-lettered as unreadable."""
    return bench.count("dead_lettered", reason="unreadable")
