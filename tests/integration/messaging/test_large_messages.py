"""Bodies of the largest size in thousands: what is in hand is bounded in bytes."""

import asyncio

import aio_pika
import pytest

from integration.messaging.bench import Bench, DownError
from nexus_messaging import consuming_channel
from nexus_messaging.backpressure import MAX_UNACKED_BYTES, PAUSED_READ_INTERVAL
from nexus_messaging.batches import MAX_BATCH_BYTES
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.topology import EVENTS
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

LARGE = 512 * 1024
MESSAGES = 240
"""Together almost four times what a consumer may hold."""

SLACK = 8 * 1024 * 1024
"""What has been read from the socket already when reading stops."""


async def publish_large(vhost: Vhost) -> None:
    """Publish all of them."""
    async with vhost.channel() as channel:
        events = await channel.get_exchange(EVENTS, ensure=False)
        for _ in range(MESSAGES):
            await events.publish(aio_pika.Message(bytes(LARGE)), "tool.executed.v1")


class Held:
    """Handles the first delivery, and holds up the others until the consumer's hands are full."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.going = asyncio.Event()

    async def behave(self, _delivery: Delivery) -> Outcome:
        """Wait, fail while the bench is down, or end well."""
        if len(self.bench.handled) > 1:
            await self.going.wait()
            if self.bench.down:
                raise DownError
        return Done()

    async def in_hand(self) -> int:
        """Return the bytes that are in hand."""
        channel = None if self.bench.consumer is None else self.bench.consumer._channel
        return 0 if channel is None else channel.unacked.bytes


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_no_more_than_a_limit_in_bytes_is_in_hand(vhost: Vhost, kind: str) -> None:
    """Whatever the prefetch allows; and all of it is processed, in batches of a few megabytes."""
    bench = Bench(vhost, kind, prefetch=1000)
    held = Held(bench)
    bench.behave = held.behave
    await publish_large(vhost)

    async with bench.consuming(grace=20):
        await eventually(held.in_hand, lambda size: size >= MAX_UNACKED_BYTES)
        full = asyncio.get_running_loop().time() + PAUSED_READ_INTERVAL + 1
        most = await eventually(held.in_hand, lambda _: asyncio.get_running_loop().time() > full)
        held.going.set()
        await bench.all_done(MESSAGES)

    assert most < MAX_UNACKED_BYTES + SLACK
    assert max(bench.batches, default=1) <= MAX_BATCH_BYTES // LARGE


async def test_little_is_read_for_heartbeats_while_hands_are_full(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work may stand still for hours, as while the broker confirms no copy."""
    reads, pause = 20, 0.2
    monkeypatch.setattr("nexus_messaging.backpressure.PAUSED_READ_INTERVAL", pause)
    monkeypatch.setattr("nexus_messaging.backpressure.MAX_UNACKED_BYTES", SLACK)
    bench = Bench(vhost, "single", prefetch=1000)
    held = Held(bench)
    bench.behave = held.behave
    await publish_large(vhost)

    async with bench.consuming(grace=20):
        await eventually(held.in_hand, lambda size: size >= SLACK)
        await asyncio.sleep(pause)  # what was read already when reading stopped
        before = await held.in_hand()
        await asyncio.sleep(reads * pause)
        grown = await held.in_hand() - before
        held.going.set()
        await bench.all_done(MESSAGES)

    assert grown <= (reads + 1) * LARGE


@pytest.mark.long
async def test_hands_that_stay_full_return_their_messages_once(vhost: Vhost) -> None:
    """The broker gives up a connection that it can't send to; the next one holds one message."""
    bench = Bench(vhost, "single", prefetch=1000)
    held = Held(bench)
    bench.behave = held.behave
    await publish_large(vhost)

    async with bench.consuming(grace=20):
        await eventually(held.in_hand, lambda size: size >= MAX_UNACKED_BYTES)
        await eventually(held.in_hand, lambda size: 0 < size <= LARGE, within=180)
        again = asyncio.get_running_loop().time() + 90
        most = await eventually(
            held.in_hand, lambda _: asyncio.get_running_loop().time() > again, within=120
        )
        tried = len(bench.handled)
        held.going.set()
        await bench.all_done(MESSAGES)

    assert most <= LARGE
    assert tried <= 1 + (MAX_UNACKED_BYTES + SLACK) // LARGE + 1


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_an_outage_hands_back_what_the_limit_held_up(vhost: Vhost, kind: str) -> None:
    """The consumer is cancelled though the broker's answer comes behind megabytes."""
    bench = Bench(vhost, kind, prefetch=1000)
    held = Held(bench)
    bench.behave, bench.down = held.behave, True
    await publish_large(vhost)

    async with bench.consuming(grace=20):
        await eventually(held.in_hand, lambda size: size >= MAX_UNACKED_BYTES)
        held.going.set()
        await eventually(bench.waiting, lambda waiting: waiting == MESSAGES - 1, within=60)
        bench.down = False
        await bench.all_done(MESSAGES)


async def test_a_message_too_large_to_be_copied_is_dead_lettered_by_the_broker(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was published under another limit; whoever waits behind it goes on."""
    monkeypatch.setattr(consuming_channel, "MAX_MESSAGE_BYTES", LARGE - 1)
    bench = Bench(vhost, "batch")
    await vhost.publish_raw(bytes(LARGE), "tool.executed.v1", exchange=EVENTS)
    await vhost.publish(tool_run())

    async with bench.consuming():
        await bench.all_done(1)
        [letter] = await bench.dead_letters(1)

    assert letter.headers["x-death"][0]["reason"] == "rejected"  # type: ignore[index,call-overload]
    assert len(letter.body) == LARGE
    assert len(bench.handled) == 1
