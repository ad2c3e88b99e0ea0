"""Requeueing dead letters with a real browser in the broker's own UI.

With ``NEXUS_TEST_PICTURES=docs/images``, the first test also takes the documentation's missing
pictures.
"""

from uuid import UUID

import pytest

from browser.management_ui import ManagementUi
from integration.messaging.bench import DEAD_LETTERS, QUEUE, Bench
from nexus_messaging.description import DELIVERY_LIMIT
from nexus_messaging.message import Delivery
from nexus_messaging.retry import BUDGET, Done, Failed, Outcome
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GETS = 30
"""More than RabbitMQ 4's default delivery limit of 20, which counts each get."""

MISTYPED = "usage-ingest.tool-exectued"


class BugError(Exception):
    """An error that is neither permanent nor transient, so that each retry spends budget."""


class Handling:
    """A handler that fails ``failures`` times, or always; it counts its calls."""

    def __init__(self, failures: int | None = None) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self, _delivery: Delivery) -> Outcome:
        """Handle a delivery."""
        self.calls += 1
        if self.failures is None or self.calls <= self.failures:
            return Failed(BugError())
        return Done()


async def show_dead_letter(bench: Bench, ui: ManagementUi) -> str:
    """Wait until the only message is a dead letter; return its text in the UI."""
    await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == 1, within=60)
    await ui.see_queued(DEAD_LETTERS, 1)
    await ui.open_queue(DEAD_LETTERS)
    [letter] = await ui.get_messages()
    return letter


async def dead_letter_by_broker(vhost: Vhost) -> UUID:
    """Have the broker dead-letter an event that a consumer rejects again and again."""
    event = tool_run()
    await vhost.publish(event)
    async with vhost.channel() as channel:
        queue = await channel.get_queue(QUEUE)
        for _ in range(DELIVERY_LIMIT + 1):
            message = await eventually(lambda: queue.get(fail=False), lambda got: got is not None)
            assert message is not None
            await message.reject(requeue=True)
    return event.id


async def test_moved_dead_letter_has_a_full_budget_each_time(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """Attempts spent, moved, spent, moved, and handled at the last attempt."""
    bench.behave = first = Handling()
    event = tool_run(source="tools/hub")
    await vhost.publish(event)

    async with bench.consuming():
        letter = await show_dead_letter(bench, ui)
        assert "nexus-reason: attempts_spent" in letter
        assert "nexus-error: BugError" in letter
        assert f"nexus-requeue-to: {QUEUE}" in letter
        bench.behave = second = Handling()
        await ui.move_messages(QUEUE)
        assert f"nexus-attempts: {BUDGET}" in await show_dead_letter(bench, ui)
        bench.behave = third = Handling(BUDGET - 1)
        await ui.move_messages(QUEUE)
        await bench.all_done(1)

    assert [first.calls, second.calls, third.calls] == [BUDGET] * 3
    assert bench.ids() == [str(event.id)] * BUDGET * 3
    assert await vhost.depth(DEAD_LETTERS) == 0


@pytest.mark.parametrize("bench", ["batch", "single"], indirect=True)
async def test_thirty_gets_of_dead_letters_spend_no_budget(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """After *Get messages* all are still there, and have a full budget once moved.

    The broker counts each get, and the move keeps the count in a header.
    """
    bench.behave = Handling()
    events = [tool_run() for _ in range(3)]
    await vhost.publish(*events)
    async with bench.consuming():
        await bench.dead_letters(len(events))

    await ui.open_queue(DEAD_LETTERS)
    for _ in range(GETS):
        seen = await ui.get_messages(len(events))
        assert len(seen) == len(events)

    bench.behave = handler = Handling((BUDGET - 1) * len(events))
    await ui.move_messages(QUEUE)
    async with bench.consuming():
        await bench.all_done(len(events))
    assert handler.calls == BUDGET * len(events)
    assert await vhost.depth(DEAD_LETTERS) == 0


async def test_dead_letter_made_by_the_broker_has_a_full_budget(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """Only `x-death` has its reason; once moved, it has as many attempts as any other."""
    event_id = await dead_letter_by_broker(vhost)

    letter = await show_dead_letter(bench, ui)
    assert "nexus-reason" not in letter
    assert "delivery_limit" in letter
    bench.behave = handler = Handling(BUDGET - 1)
    await ui.move_messages(QUEUE)

    async with bench.consuming():
        await bench.all_done(1)
    assert bench.ids() == [str(event_id)] * BUDGET
    assert handler.calls == BUDGET


async def test_message_moved_to_a_mistyped_queue_can_be_moved_on(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """The broker makes a classic queue of that name, which keeps the message."""
    bench.behave = Handling()
    event = tool_run()
    await vhost.publish(event)
    async with bench.consuming():
        await show_dead_letter(bench, ui)
        await ui.move_messages(MISTYPED)
        await ui.see_queued(MISTYPED, 1)
        made = await vhost.ask("GET", f"queues/{{vhost}}/{MISTYPED}")
        assert made["type"] == "classic"

        bench.behave = Handling(0)
        await ui.open_queue(MISTYPED)
        await ui.move_messages(QUEUE)
        await bench.all_done(1)
    assert bench.ids()[-1] == str(event.id)
