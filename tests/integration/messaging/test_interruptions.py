"""Outages, deploys, lost connections: nothing is lost by them, and nothing is blamed for them."""

import asyncio

import aiormq
import pytest

from integration.messaging.bench import (
    DEAD_LETTERS,
    MIN_SCALE,
    QUEUE,
    Bench,
    DownError,
    close_connections,
    well,
)
from nexus_messaging.consuming_channel import ConsumingChannel
from nexus_messaging.message import Delivery
from nexus_messaging.retry import ATTEMPT, Done, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

MESSAGES = 60


async def test_connections_lost_under_load_lose_no_message(bench: Bench) -> None:
    """Each message is handled, those that were not acked again; none is dead-lettered for it.

    The ack is the last step: what is in hand as the connection breaks comes once more, though its
    handler ends well afterwards.
    """
    handling, broken = asyncio.Event(), asyncio.Event()

    async def take_a_moment(_delivery: Delivery) -> Outcome:
        handling.set()
        await broken.wait()
        await asyncio.sleep(0.002)
        return Done()

    bench.behave = take_a_moment
    events = [tool_run() for _ in range(5 * MESSAGES)]
    await bench.vhost.publish(*events)
    async with bench.consuming():
        await handling.wait()
        in_hand = bench.ids()
        await close_connections(bench.vhost, 2)
        broken.set()
        await eventually(lambda: distinct(bench), lambda ids: len(ids) == len(events))
        await eventually(bench.waiting, lambda waiting: waiting == 0)

    assert all(bench.ids().count(each) == 2 for each in in_hand)
    assert await bench.vhost.depth(DEAD_LETTERS) == 0


async def distinct(bench: Bench) -> set[str | None]:
    """Return the ids handled so far."""
    return set(bench.ids())


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_a_consumer_cancelled_by_the_broker_consumes_again(
    own_vhost: Vhost, kind: str
) -> None:
    """A queue deleted and made anew is consumed again without a restart, every time."""
    bench = Bench(own_vhost, kind)
    async with bench.consuming():
        await own_vhost.publish(tool_run())
        await bench.all_done(1)
        for done in (2, 3):
            await own_vhost.ask("DELETE", "queues/{vhost}/" + QUEUE)
            # RabbitMQ 3.10 may forget to tell of a queue that is there again at once.
            await eventually(bench.consumes, lambda consumes: not consumes)
            await own_vhost.create(tier_scale=MIN_SCALE)
            await own_vhost.publish(tool_run())
            await bench.all_done(done)


async def test_a_consumer_that_the_broker_forgot_consumes_again(
    own_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 3.10 sometimes sends no cancel for a queue that is declared again at once."""

    async def hear_nothing(_channel: ConsumingChannel, _frame: object) -> None:
        pass

    monkeypatch.setattr(ConsumingChannel, "_on_cancel", hear_nothing)
    monkeypatch.setattr("nexus_messaging.consumer.CONSUMER_CHECK_INTERVAL", 1.0)
    bench = Bench(own_vhost, "single")
    async with bench.consuming():
        await own_vhost.publish(tool_run())
        await bench.all_done(1)
        for done in (2, 3):
            await eventually(lambda: idle(bench), bool)
            await own_vhost.ask("DELETE", "queues/{vhost}/" + QUEUE)
            await own_vhost.create(tier_scale=MIN_SCALE)
            await own_vhost.publish(tool_run())
            await bench.all_done(done)


async def idle(bench: Bench) -> bool:
    """Return whether all is acked that was delivered, and more would be."""
    channel = None if bench.consumer is None else bench.consumer._channel
    return channel is not None and not (channel.probing or len(channel.unacked))


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_a_connection_lost_while_the_queue_is_missing_is_made_good(
    own_vhost: Vhost, kind: str
) -> None:
    """Reconnecting finds nothing to consume at first, and consumes once the queue is there."""
    bench = Bench(own_vhost, kind)
    async with bench.consuming():
        await own_vhost.publish(tool_run())
        await bench.all_done(1)
        await own_vhost.ask("DELETE", "queues/{vhost}/" + QUEUE)
        await close_connections(own_vhost)
        await eventually(lambda: reconnected(own_vhost), lambda names: len(names) >= 1)
        await own_vhost.create(tier_scale=MIN_SCALE)
        await own_vhost.publish(tool_run())
        await bench.all_done(2)


async def reconnected(vhost: Vhost) -> list[str]:
    """Return the names of the connections to ``vhost`` that the broker has now."""
    found = await vhost.ask("GET", "vhosts/{vhost}/connections")
    return [each["name"] for each in found]


async def test_an_outage_spends_no_budget_and_makes_no_dead_letter(bench: Bench) -> None:
    """However often it is tried meanwhile, each message is done once it is over, unblamed."""
    bench.down = True

    async def need_something(_delivery: Delivery) -> Outcome:
        if bench.down:
            raise DownError
        return Done()

    bench.behave = need_something
    await bench.vhost.publish(*(tool_run() for _ in range(MESSAGES)))
    async with bench.consuming():
        await eventually(bench.tried, lambda tried: tried > 0)
        bench.down = False
        await bench.all_done(MESSAGES)

    assert bench.count("done") == MESSAGES
    assert {each.headers[ATTEMPT] for each in bench.handled if each.came_back} <= {1}
    assert await bench.vhost.depth(DEAD_LETTERS) == 0


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_an_outage_stops_consuming_until_a_probe_succeeds(vhost: Vhost, kind: str) -> None:
    """While it lasts nothing is in hand, the handler is left alone, and only the probe asks."""
    bench = Bench(vhost, kind)
    bench.down = True
    bench.behave = fail_down
    await vhost.publish(*(tool_run() for _ in range(MESSAGES)))

    async with bench.consuming():
        await eventually(bench.probed, lambda probes: probes >= 1)
        await eventually(bench.waiting, lambda waiting: waiting == MESSAGES)
        tried = len(bench.handled)
        await eventually(bench.probed, lambda probes: probes >= 3)
        assert len(bench.handled) == tried
        bench.behave = well
        bench.down = False
        await bench.all_done(MESSAGES)

    assert bench.count("done") == MESSAGES


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_an_outage_that_no_probe_sees_is_not_met_at_full_speed(
    vhost: Vhost, kind: str
) -> None:
    """A database with a full disk answers each probe: everything comes again, but with pauses."""
    bench = Bench(vhost, kind)
    bench.behave = fail_down
    await vhost.publish(*(tool_run() for _ in range(MESSAGES)))

    async with bench.consuming():
        await eventually(bench.probed, lambda probes: probes >= 2)
        await asyncio.sleep(1.0)
        assert bench.probes <= 4
        bench.behave = well
        await bench.all_done(MESSAGES)

    assert bench.count("done") == MESSAGES


async def fail_down(_delivery: Delivery) -> Outcome:
    """Fail as in an outage."""
    raise DownError


async def test_stopping_finishes_what_is_in_hand(bench: Bench) -> None:
    """What is being handled at SIGTERM ends well, and nothing of the rest is lost."""
    handling, stopping = asyncio.Event(), asyncio.Event()

    async def finish_late(_delivery: Delivery) -> Outcome:
        handling.set()
        await stopping.wait()
        return Done()

    bench.behave = finish_late
    await bench.vhost.publish(*(tool_run() for _ in range(MESSAGES)))
    async with bench.consuming():
        await handling.wait()
        asyncio.get_running_loop().call_later(0.3, stopping.set)

    done = bench.count("done")
    assert done >= 1
    await eventually(bench.waiting, lambda waiting: waiting == MESSAGES - done)
    assert set(bench.ids()) == {each.message.message_id for each in bench.handled}


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_stopping_hands_back_what_takes_too_long(vhost: Vhost, kind: str) -> None:
    """What cannot end within the grace returns by a copy, with the attempt it had."""
    bench = Bench(vhost, kind)

    async def fail_then_hang(delivery: Delivery) -> Outcome:
        if not delivery.came_back:
            raise RuntimeError
        await asyncio.Event().wait()
        return Done()

    bench.behave = fail_then_hang
    await vhost.publish(tool_run())
    async with bench.consuming(grace=0.5):
        await eventually(bench.tried, lambda tried: tried == 2)
    bench.behave = well
    async with bench.consuming():
        await bench.all_done(1)

    assert [each.headers.get(ATTEMPT) for each in bench.handled] == [None, 2, 2]
    assert [each.returned for each in bench.handled] == [0, 0, 0]
    assert await bench.waiting() == 0


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_a_connection_that_got_stuck_is_made_anew(vhost: Vhost, kind: str) -> None:
    """The client library's cancellation of its own reader does not end our loops."""
    bench = Bench(vhost, kind)
    async with bench.consuming():
        await vhost.publish(tool_run())
        await bench.all_done(1)
        await get_stuck(bench)
        await vhost.publish(tool_run())
        await bench.all_done(2)


async def get_stuck(bench: Bench) -> None:
    """Cancel the connection's reader, as the client library does after missed heartbeats."""
    assert bench.consumer is not None
    assert bench.consumer._channel is not None
    connection = bench.consumer._channel.connection.amqp
    assert isinstance(connection, aiormq.Connection)
    connection._reader_task.cancel()


async def test_an_ack_for_a_lost_connection_acks_nothing_on_the_next(bench: Bench) -> None:
    """The tags of two connections are the same numbers: the wrong message would be lost."""
    ends = [asyncio.Event(), asyncio.Event()]

    async def take_until_its_end(_delivery: Delivery) -> Outcome:
        place = len(bench.handled) - 1
        if place < len(ends):
            await ends[place].wait()
        return Done()

    bench.behave = take_until_its_end
    await bench.vhost.publish(tool_run())
    async with bench.consuming():
        await eventually(bench.tried, lambda tried: tried == 1)
        await close_connections(bench.vhost, 2)
        await eventually(lambda: delivered(bench), lambda times: times == 2)
        ends[0].set()
        await bench.all_done(1)
        await eventually(bench.tried, lambda tried: tried == 2)
        await close_connections(bench.vhost, 2)
        await eventually(bench.consumes, lambda consumes: not consumes)
        ends[1].set()

        await eventually(bench.tried, lambda tried: tried == 3)


async def delivered(bench: Bench) -> int:
    """Count what was handled and what waits for it in the consumer."""
    return len(bench.handled) + (len(bench.consumer) if bench.consumer else 0)
