"""Deliveries taken from the byte stream on a real broker, and the same ones read by aiormq."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from integration.messaging.bench import Bench
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, HandedBack, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

SIZES = (0, 1, 1000, 131_064, 131_065, 400_000)
"""Bytes of a body: none, few, just one frame of RabbitMQ's default size, and several frames."""

HEARTBEAT = 2
GRACE = 3 * (HEARTBEAT + 1)
"""Seconds without a frame after which aiormq closes a connection."""


@pytest.mark.parametrize("fast_reading", [True, False])
@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_both_ways_of_reading_give_the_same_deliveries(
    vhost: Vhost, kind: str, *, fast_reading: bool
) -> None:
    """Bodies of all sizes arrive whole and in order, and again from a retry tier."""
    bench = Bench(vhost, kind, fast_reading=fast_reading)
    bodies = [bytes([number]) * size for number, size in enumerate(SIZES)]

    async def hand_back_once(delivery: Delivery) -> Outcome:
        return Done() if delivery.came_back else HandedBack()

    bench.behave = hand_back_once
    for body in bodies:
        await vhost.publish_raw(body, "tool.executed.v1")
    async with bench.consuming():
        await bench.all_done(len(bodies))
        reader = await eventually(lambda: reader_of(bench), lambda _: True)

    firsts = [each.body for each in bench.handled if not each.came_back]
    seconds = [each.body for each in bench.handled if each.came_back]
    assert firsts == bodies
    assert sorted(seconds) == sorted(bodies)
    assert {each.message.type for each in bench.handled} == {bench.handled[0].message.type}
    assert (reader is not None) == fast_reading
    assert await bench.waiting() == 0


async def reader_of(bench: Bench) -> object:
    """Return what takes deliveries from the stream, after asserting that it still does."""
    assert bench.consumer is not None
    assert bench.consumer._channel is not None
    reader = bench.consumer._channel.connection.reader
    assert reader is None or not reader._passes_all, "a frame of the broker was in doubt"
    return reader


async def test_a_batch_with_too_few_outcomes_is_acked_in_no_part(batch_bench: Bench) -> None:
    """Were the missing ones taken as processed, their messages would be lost."""
    handle, short = batch_bench._handle_batch, [True]

    async def forget_one(deliveries: Sequence[Delivery]) -> list[Outcome]:
        outcomes = await handle(deliveries)
        return outcomes[:-1] if short and short.pop() else outcomes

    batch_bench._handle_batch = forget_one  # type: ignore[method-assign]
    await batch_bench.vhost.publish(tool_run(), tool_run())
    async with batch_bench.consuming():
        await batch_bench.all_done(2)
        await eventually(batch_bench.waiting, lambda waiting: waiting == 0)

    assert len(set(batch_bench.ids())) == 2
    assert len(batch_bench.handled) > 2


@pytest.mark.long
async def test_a_connection_with_nothing_but_deliveries_stays_open(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sends no heartbeat while it delivers, and aiormq sees no delivery."""
    monkeypatch.setattr("nexus_messaging.connecting.HEARTBEAT", HEARTBEAT)
    bench = Bench(vhost, "single", prefetch=1000)
    first_ends = asyncio.Event()

    async def keep_second(_delivery: Delivery) -> Outcome:
        if len(bench.handled) == 2:
            await first_ends.wait()  # with an unsettled delivery the broker is asked nothing
        return Done()

    bench.behave = keep_second
    with capture_logs() as logged:
        async with bench.consuming():
            deadline = asyncio.get_running_loop().time() + 2 * GRACE
            while asyncio.get_running_loop().time() < deadline:
                await vhost.publish(tool_run())
            first_ends.set()
            await eventually(bench.waiting, lambda waiting: waiting == 0)

    assert not [line for line in logged if line["event"] == "not_consuming"]
    assert not [each for each in bench.handled if each.redelivered]
