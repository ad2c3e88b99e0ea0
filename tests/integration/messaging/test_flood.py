"""Floods of bad messages: the queue is not emptied into its dead-letter queue.

One publisher's flood is held back and the others' messages pass; everybody's stops the queue.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from functools import partial
from itertools import cycle, islice
from operator import eq

import aio_pika
import pytest

from integration.messaging.bench import DEAD_LETTERS, QUEUE, Bench, close_connections, well
from local_stack.servers import Broker
from nexus_contracts import ToolExecuted, read_event
from nexus_messaging.flood import FloodLimit
from nexus_messaging.message import Delivery
from nexus_messaging.retry import ATTEMPT, Done, Outcome
from nexus_messaging.sources import KNOWN_AFTER
from nexus_messaging.topology import EVENTS
from support.events import tool_run
from support.vhost import Vhost, bad_message, message
from support.waiting import eventually

LIMIT = FloodLimit(0.5, 200)
MAX_DEAD_LETTERS = LIMIT.max_dead_letters + 1
"""Dead letters of one stop: the last of them is what shows that it is a flood."""

KEY = "tool.executed.v1"
BAD = 5000
A, B = "a/bad", "b/bad"
HOUR_IN_SECONDS = 0.001
"""The scale at which what is held back returns after 3.6 s."""

KINDS = ("batch", "single")


async def read(delivery: Delivery) -> Outcome:
    """Handle a delivery by reading it, as every service does first."""
    return Done(read_event(delivery.message.body, [ToolExecuted]).source)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a bench of each kind of consumer that lets few dead letters through."""
    flooded = Bench(vhost, request.param, LIMIT)
    flooded.behave = read
    return flooded


def bad(sources: Iterable[str | None], number: int) -> list[aio_pika.Message]:
    """Return messages that break the contract, of each source in turn; `None`: unreadable."""
    return [bad_message(source, KEY) for source in islice(cycle(sources), number)]


async def publish(vhost: Vhost, messages: list[aio_pika.Message]) -> None:
    """Publish messages in their order, many at once."""
    async with vhost.channel() as channel:
        exchange = await channel.get_exchange(EVENTS, ensure=False)
        for begin in range(0, len(messages), 500):
            some = messages[begin : begin + 500]
            await asyncio.gather(*(exchange.publish(each, KEY) for each in some))


async def publish_mixed(vhost: Vhost, number: int, good: int = 0) -> None:
    """Publish good messages evenly among bad ones of two sources."""
    messages = bad([A, B], number)
    for each in range(good):
        messages.insert(each * (number + good) // good, message(tool_run()))
    await publish(vhost, messages)


async def know(bench: Bench, *sources: str) -> None:
    """Have the consumer know sources by what ended well of each."""
    events = [tool_run(source=source) for source in sources for _ in range(KNOWN_AFTER)]
    done = int(bench.count("done"))
    await bench.vhost.publish(*events)
    await bench.all_done(done + len(events))


async def stops(bench: Bench) -> str:
    """Wait until the consumption is stopped, nothing is on its way any more, and say why."""
    why = await eventually(bench.stopped, lambda cause: cause is not None)
    await eventually(lambda: consumers(bench.vhost), lambda number: number == 0)
    return why or ""


async def consumers(vhost: Vhost) -> int:
    """Return how many consumers the broker sees on the queue."""
    async with vhost.channel() as channel:
        declared = await channel.get_queue(QUEUE)
        return declared.declaration_result.consumer_count or 0


@pytest.mark.timeout(240)
async def test_a_flood_stops_the_consumer_and_stays_in_its_queue(bench: Bench) -> None:
    """Of 5,000 bad messages of most sources the dead-letter queue gets no more than one window.

    The good ones before the stop are handled; all the rest waits, and nothing is lost.
    """
    good = 250
    async with bench.consuming():
        await know(bench, A, B)
        await publish_mixed(bench.vhost, BAD, good)
        why = await stops(bench)
        waiting = BAD - MAX_DEAD_LETTERS + 20 + good - int(bench.count("done"))
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == waiting)
        tried, done = len(bench.handled), bench.count("done")
        await bench.vhost.publish(tool_run())
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == waiting + 1)

        assert why.endswith("messages were dead-lettered, most of them as invalid")
        assert bench.gauge("consumption_stopped") == 1
        assert await bench.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS
        assert bench.count("dead_lettered", reason="invalid") == MAX_DEAD_LETTERS
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
        await publish_mixed(bench.vhost, 3 * MAX_DEAD_LETTERS)
        for stop in (1, 2):
            await stops(bench)
            assert await bench.vhost.depth(DEAD_LETTERS) == stop * MAX_DEAD_LETTERS
            if stop == 1:
                bench.resume()
                await eventually(
                    lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth > MAX_DEAD_LETTERS
                )

    await eventually(bench.waiting, lambda waiting: waiting == MAX_DEAD_LETTERS)


async def test_a_stopped_consumer_starts_anew_with_its_process(bench: Bench) -> None:
    """A restart resumes it, too."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, MAX_DEAD_LETTERS + 10)
        await stops(bench)
        await bench.vhost.publish(tool_run())
    async with bench.consuming():
        await bench.all_done(1)
        await eventually(
            lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == MAX_DEAD_LETTERS + 10
        )


async def test_a_stopped_consumer_stays_stopped_when_its_connection_is_lost(bench: Bench) -> None:
    """A client library that reconnects by itself does not empty the queue after all."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, 4 * MAX_DEAD_LETTERS)
        await stops(bench)
        await close_connections(bench.vhost, 2)
        await bench.vhost.publish(tool_run())
        await eventually(lambda: consumers(bench.vhost), lambda number: number == 0)
        await eventually(bench.waiting, lambda waiting: waiting == 3 * MAX_DEAD_LETTERS + 1)

        assert await bench.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS
        bench.resume()
        await eventually(
            lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == 2 * MAX_DEAD_LETTERS
        )


async def test_dead_letters_moved_while_they_are_still_wrong_stop_nothing(bench: Bench) -> None:
    """They come back with their reasons, and what else is in the queue is handled."""
    async with bench.consuming():
        await publish_mixed(bench.vhost, MAX_DEAD_LETTERS - 1)
        await eventually(
            lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == MAX_DEAD_LETTERS - 1
        )
        for moved in (1, 2):
            await bench.vhost.move(DEAD_LETTERS, QUEUE)
            await eventually(
                lambda: dead_lettered(bench), partial(eq, (1 + moved) * (MAX_DEAD_LETTERS - 1))
            )
        await bench.vhost.publish(tool_run())
        await bench.all_done(1)

    assert await bench.stopped() is None
    assert await bench.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS - 1


async def dead_lettered(bench: Bench) -> float:
    """Return how many messages the service has dead-lettered as invalid."""
    return bench.count("dead_lettered", reason="invalid")


@pytest.fixture
async def slow(
    request: pytest.FixtureRequest, broker: Broker, password: str
) -> AsyncIterator[Bench]:
    """Return such a bench, of batches by default, where the longest tier waits for some seconds."""
    vhost = Vhost(broker, f"flood-{secrets.token_hex(4)}", password)
    await vhost.create(tier_scale=HOUR_IN_SECONDS)
    flooded = Bench(vhost, getattr(request, "param", "batch"), LIMIT)
    flooded.behave = read
    yield flooded
    await vhost.delete()


def mixed(sources: Iterable[str | None], number: int) -> list[aio_pika.Message]:
    """Return bad messages of ``sources`` and good ones of another, by turns."""
    pairs = zip(bad(sources, number), (message(tool_run()) for _ in range(number)), strict=True)
    return [each for pair in pairs for each in pair]


async def held_back(bench: Bench) -> float:
    """Return how often a message was held back."""
    return bench.count("held_back")


@pytest.mark.parametrize("slow", KINDS, indirect=True)
async def test_one_bad_publisher_at_half_of_the_traffic_stops_nobody(slow: Bench) -> None:
    """Of its dead letters one window is let through; the rest waits, and the others pass."""
    async with slow.consuming():
        await know(slow, A)
        await publish(slow.vhost, mixed([A], 500))
        await slow.all_done(KNOWN_AFTER + 500)
        await eventually(lambda: held_back(slow), lambda times: times >= 500 - MAX_DEAD_LETTERS)

        assert await slow.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS
        assert (slow.gauge("sources_held_back"), slow.gauge("consumption_stopped")) == (1, 0)
        assert str(await slow.stopped()).startswith(f"{QUEUE} holds back dead letters of {A} (")


@pytest.mark.parametrize("names", [1, 500])
async def test_unknown_and_unreadable_sources_are_held_back_as_one(slow: Bench, names: int) -> None:
    """A publisher that changes its name with each message has one window like everybody else."""
    sources = [None, *(f"x/{number}" for number in range(names))]
    async with slow.consuming():
        await publish(slow.vhost, mixed(sources, 500))
        await slow.all_done(500)
        await eventually(lambda: held_back(slow), lambda times: times >= 500 - MAX_DEAD_LETTERS)

        assert await slow.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS
        assert "holds back dead letters of unknown sources (" in str(await slow.stopped())


async def test_what_is_held_back_returns_until_it_is_resumed(slow: Bench) -> None:
    """Each time with its counters as they were; resumed, it is dead-lettered after all."""
    number = MAX_DEAD_LETTERS + 40
    async with slow.consuming():
        await know(slow, A)
        await publish(slow.vhost, bad([A], number))
        await eventually(lambda: held_back(slow), lambda times: times >= 3 * 40)
        assert await slow.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS
        slow.resume()
        await eventually(lambda: slow.vhost.depth(DEAD_LETTERS), lambda depth: depth == number)

        assert slow.gauge("sources_held_back") == 0
        assert await slow.stopped() is None
    assert {each.headers[ATTEMPT] for each in slow.handled if each.came_back} == {1}
    assert await slow.waiting() == 0


async def test_what_is_held_back_passes_once_its_cause_is_mended(slow: Bench) -> None:
    """If the fault was the reader's after all, nobody need do more."""
    number = MAX_DEAD_LETTERS + 40
    async with slow.consuming():
        await know(slow, A)
        await publish(slow.vhost, bad([A], number))
        await eventually(lambda: held_back(slow), lambda times: times >= 40)

        slow.behave = well

        await slow.all_done(KNOWN_AFTER + 40)
    assert await slow.vhost.depth(DEAD_LETTERS) == MAX_DEAD_LETTERS


async def test_a_restart_holds_nothing_back(slow: Bench) -> None:
    """The new process begins with an empty window."""
    number = MAX_DEAD_LETTERS + 40
    async with slow.consuming():
        await publish(slow.vhost, bad([A], number))
        await eventually(lambda: held_back(slow), lambda times: times >= 40)
    async with slow.consuming():
        await eventually(lambda: slow.vhost.depth(DEAD_LETTERS), lambda depth: depth == number)
