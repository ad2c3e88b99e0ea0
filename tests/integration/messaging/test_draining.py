"""Stopping with hands full: nothing counts as returned, and nothing comes twice."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from integration.messaging.bench import QUEUE, Bench
from nexus_messaging.consumer import Consumer
from nexus_messaging.message import Delivery
from nexus_messaging.received import Received
from nexus_messaging.retry import Done, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

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


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_nothing_is_consumed_again_while_stopping(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A loop that fails meanwhile begins anew, and takes nothing."""
    bench = Bench(vhost, kind)
    stopping, hung, failed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    real = Consumer.ack

    async def fail_while_stopping(consumer: Consumer, received: Sequence[Received]) -> None:
        if stopping.is_set() and not failed.is_set():
            failed.set()
            raise LookupError
        await real(consumer, received)

    async def hang(_delivery: Delivery) -> Outcome:
        if bench.ids()[1:]:
            hung.set()
            await stopping.wait()
        return Done()

    bench.behave = hang
    monkeypatch.setattr(Consumer, "ack", fail_while_stopping)
    await vhost.publish(*(tool_run() for _ in range(MESSAGES)))
    with capture_logs() as logs:
        async with bench.consuming():
            await hung.wait()
            asyncio.get_running_loop().call_later(0.3, stopping.set)

    events = [each["event"] for each in logs]
    assert "loop_failed" in events or "drain_failed" in events
    assert "consuming_again" not in events
