"""An error where nobody expects one, at every step between a delivery and its ack."""

import asyncio
from collections.abc import Sequence

import pytest

from integration.messaging.bench import DEAD_LETTERS, Bench, DownError
from nexus_messaging.consumer import Consumer
from nexus_messaging.consuming_channel import ConsumingChannel
from nexus_messaging.consumption import Consumption
from nexus_messaging.message import Delivery
from nexus_messaging.pipeline import Pipeline
from nexus_messaging.received import Received
from nexus_messaging.retry import Done, HandedBack, Outcome
from nexus_messaging.settlement import Settlement
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

MESSAGES = 40

STEPS = (
    (Consumer, "receive"),
    (Pipeline, "process"),
    (Settlement, "carry_out"),
    (Consumer, "ack"),
    (Consumer, "_send_acks"),
    (ConsumingChannel, "_raise_prefetch"),
    (Pipeline, "hand_back"),
    (Consumption, "_cancel_and_hand_back"),
)
"""All that is awaited between a delivery and its ack, but the handler: its errors are foreseen."""


FROM_CALL = {"_raise_prefetch": 1, "hand_back": 1, "_cancel_and_hand_back": 1}
"""The call that fails where it is not the third: these come once in a connection or an outage."""


class Once:
    """Raises at one call of a method, before or after its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: str) -> None:
        self.raised = False
        real, calls = getattr(owner, name), 0

        async def sometimes(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            due = not self.raised and calls >= FROM_CALL.get(name, 3)
            self.raised |= due
            if due and when == "before":
                raise LookupError(name)
            result = await real(*args, **kwargs)
            if due:
                raise LookupError(name)
            return result

        monkeypatch.setattr(owner, name, sometimes)


@pytest.mark.parametrize("kind", ["batch", "single"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
async def test_an_unforeseen_error_loses_no_message_and_no_place(
    vhost: Vhost,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    when: str,
    owner: type,
    name: str,
) -> None:
    """Everything is processed in the end, and nothing is acked that was not."""
    bench = Bench(vhost, kind)
    events = [tool_run() for _ in range(MESSAGES)]
    once = Once(monkeypatch, owner, name, when)

    async def hand_back_some_and_fail_once(delivery: Delivery) -> Outcome:
        if len(bench.handled) == MESSAGES // 2:
            raise DownError
        return Done() if delivery.came_back or len(bench.handled) % 4 else HandedBack()

    bench.behave = hand_back_some_and_fail_once
    await vhost.publish(*events)
    async with bench.consuming():
        await eventually(lambda: seen(bench), lambda ids: len(ids) == MESSAGES, within=40)
        await eventually(bench.waiting, lambda waiting: waiting == 0, within=40)

    assert once.raised
    assert await vhost.depth(DEAD_LETTERS) == 0


async def test_an_unforeseen_error_beside_an_outage_loses_no_message_and_no_place(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends badly after an outage was found comes again, as it would without one."""
    bench = Bench(vhost, "single")
    first, failing, others = (tool_run() for _ in range(3))
    at_ack = {str(failing.id)}
    real = Consumer.ack

    async def meet_an_outage(delivery: Delivery) -> Outcome:
        if delivery.message.message_id == str(failing.id) and not delivery.returned:
            await eventually(bench.consumes, lambda consumes: not consumes)
        elif delivery.message.message_id == str(others.id) and not delivery.came_back:
            raise DownError
        return Done()

    async def fail_once(consumer: Consumer, received: Sequence[Received]) -> None:
        if {each.message.message_id for each in received} & at_ack:
            at_ack.clear()
            raise LookupError
        await real(consumer, received)

    bench.behave = meet_an_outage
    monkeypatch.setattr(Consumer, "ack", fail_once)
    await vhost.publish(first, failing, others)
    async with bench.consuming():
        await eventually(lambda: times(bench, str(failing.id)), lambda number: number == 2)
        await eventually(bench.waiting, lambda waiting: waiting == 0)

    assert not at_ack


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_an_unforeseen_error_in_an_outage_leaves_no_queue_marked_as_paused(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Consuming begins anew; whoever watches is shown so."""
    bench = Bench(vhost, kind)
    bench.down = True
    failed = asyncio.Event()
    real = Consumption._cancel_and_hand_back

    async def fail_once_paused(consumption: Consumption) -> None:
        await real(consumption)
        if consumption.is_paused() and not failed.is_set():
            failed.set()
            raise LookupError

    async def need_something(_delivery: Delivery) -> Outcome:
        if bench.down:
            raise DownError
        return Done()

    bench.behave = need_something
    monkeypatch.setattr(Consumption, "_cancel_and_hand_back", fail_once_paused)
    await vhost.publish(tool_run())
    async with bench.consuming():
        await failed.wait()
        bench.down = False
        await bench.all_done(1)
        assert bench.consumption is not None
        assert not bench.consumption.is_paused()


async def times(bench: Bench, message_id: str) -> int:
    """Return how often a message was handled."""
    return bench.ids().count(message_id)


async def seen(bench: Bench) -> set[str | None]:
    """Return the ids of what was handled."""
    return set(bench.ids())
