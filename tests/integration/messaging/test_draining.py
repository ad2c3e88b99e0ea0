"""Stopping with hands full: nothing counts as returned, and nothing comes twice."""

import asyncio

import pytest

from integration.messaging.bench import QUEUE, Bench
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from rig.events import tool_run
from rig.vhost import Vhost
from rig.waiting import eventually

PREFETCH = 200
MESSAGES = 300

STOPS = [*range(2), *(pytest.param(stop, marks=pytest.mark.long) for stop in range(2, 20))]


@pytest.mark.parametrize("kind", ["batch", "single"])
@pytest.mark.parametrize("stop", STOPS)
async def test_stopping_with_a_full_prefetch_counts_and_doubles_nothing(
    vhost: Vhost, kind: str, stop: int
) -> None:
    """Of 200 deliveries in hand every other one ends as the service stops, the rest is returned.

    All of it at once: the broker loses acks that are written right before a connection closes, and
    counts their messages as delivered in vain.
    """
    bench = Bench(vhost, kind, prefetch=PREFETCH)
    stopping = asyncio.Event()

    async def end_every_other(delivery: Delivery) -> Outcome:
        if kind == "single" and len(bench.handled) > 1:
            await stopping.wait()
            if bench.handled.index(delivery) % 2:
                await asyncio.Event().wait()
        elif len(bench.handled) > PREFETCH:
            await asyncio.Event().wait()
        return Done()

    bench.behave = end_every_other
    await vhost.publish(*(tool_run() for _ in range(MESSAGES)))
    async with bench.consuming(grace=5.0 + stop % 3):
        await eventually(bench.tried, lambda tried: tried >= PREFETCH)
        stopping.set()

    done = bench.count("done")
    assert 0 < done < MESSAGES
    await eventually(bench.waiting, lambda waiting: waiting >= MESSAGES - done)
    await eventually(lambda: vhost.depth(QUEUE), lambda depth: depth >= MESSAGES - done)
    left = await vhost.peek(QUEUE)
    assert len(left) == MESSAGES - done
    assert [each.headers.get("x-delivery-count", 0) for each in left if each.redelivered] == []
