"""What an operator does about dead letters, with a real browser in the broker's own UI.

With ``NEXUS_TEST_PICTURES=docs/images``, the first test takes the documentation's pictures, too, as
far as they are missing there.
"""

from uuid import UUID

import pytest

from browser.management_ui import ManagementUi
from integration.messaging.bench import DEAD_LETTERS, QUEUE, Bench
from nexus_messaging.message import Delivery
from nexus_messaging.retry import BUDGET, Done, Failed, Outcome
from nexus_messaging.topology import DELIVERY_LIMIT
from rig.events import tool_run
from rig.vhost import Vhost
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

LOOKS = 30
"""More than RabbitMQ 4's own delivery limit of 20, which counts each look."""

MISTYPED = "usage-ingest.tool-exectued"


class BugError(Exception):
    """What the handler fails with; no policy knows it, so its retries are budgeted."""


class Handling:
    """A handler that fails ``failures`` times, or for ever, and then works; it counts its calls."""

    def __init__(self, failures: int | None = None) -> None:
        self.failures = failures
        self.tried = 0

    async def __call__(self, _delivery: Delivery) -> Outcome:
        """Handle a delivery."""
        self.tried += 1
        if self.failures is None or self.tried <= self.failures:
            return Failed(BugError())
        return Done()


async def exhausted(bench: Bench, ui: ManagementUi) -> str:
    """Wait until the one message in the bench's hands is a dead letter; return what is shown."""
    await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), lambda depth: depth == 1, within=60)
    await ui.see_queued(DEAD_LETTERS, 1)
    await ui.open_queue(DEAD_LETTERS)
    [letter] = await ui.get_messages()
    return letter


async def dead_letter_by_broker(vhost: Vhost) -> UUID:
    """Have the broker dead-letter an event that one reader refuses over and over."""
    event = tool_run()
    await vhost.publish(event)
    async with vhost.channel() as channel:
        queue = await channel.get_queue(QUEUE)
        for _ in range(DELIVERY_LIMIT + 1):
            message = await eventually(lambda: queue.get(fail=False), lambda got: got is not None)
            assert message is not None
            await message.reject(requeue=True)
    return event.id


async def test_a_moved_dead_letter_has_a_full_budget_each_time(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """Exhausted, moved, exhausted, moved, and handled at the last of its tries."""
    bench.behave = first = Handling()
    event = tool_run(source="tools/hub")
    await vhost.publish(event)

    async with bench.consuming():
        letter = await exhausted(bench, ui)
        assert "nexus-reason: attempts_spent" in letter
        assert "nexus-error: BugError" in letter
        assert f"nexus-requeue-to: {QUEUE}" in letter
        bench.behave = second = Handling()
        await ui.move_messages(QUEUE)
        assert f"nexus-attempts: {BUDGET}" in await exhausted(bench, ui)
        bench.behave = third = Handling(BUDGET - 1)
        await ui.move_messages(QUEUE)
        await bench.all_done(1)

    assert [first.tried, second.tried, third.tried] == [BUDGET] * 3
    assert bench.ids() == [str(event.id)] * BUDGET * 3
    assert await vhost.depth(DEAD_LETTERS) == 0


@pytest.mark.parametrize("bench", ["batch", "single"], indirect=True)
async def test_thirty_looks_at_dead_letters_lose_none_and_spend_nothing(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """*Get messages* can be pressed at will: all are still there, and moved with a full budget.

    The broker counts each look, and the move takes the count along in a header.
    """
    bench.behave = Handling()
    events = [tool_run() for _ in range(3)]
    await vhost.publish(*events)
    async with bench.consuming():
        await bench.dead_letters(len(events))

    await ui.open_queue(DEAD_LETTERS)
    for _ in range(LOOKS):
        seen = await ui.get_messages(len(events))
        assert len(seen) == len(events)

    bench.behave = handler = Handling((BUDGET - 1) * len(events))
    await ui.move_messages(QUEUE)
    async with bench.consuming():
        await bench.all_done(len(events))
    assert handler.tried == BUDGET * len(events)
    assert await vhost.depth(DEAD_LETTERS) == 0


async def test_a_dead_letter_of_the_brokers_own_has_a_full_budget_too(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """It says why in `x-death` alone; moved, it is tried as often as any other."""
    event_id = await dead_letter_by_broker(vhost)

    letter = await exhausted(bench, ui)
    assert "nexus-reason" not in letter
    assert "delivery_limit" in letter
    bench.behave = handler = Handling(BUDGET - 1)
    await ui.move_messages(QUEUE)

    async with bench.consuming():
        await bench.all_done(1)
    assert bench.ids() == [str(event_id)] * BUDGET
    assert handler.tried == BUDGET


async def test_a_mistyped_destination_becomes_a_queue_from_which_the_message_can_be_moved(
    vhost: Vhost, ui: ManagementUi, bench: Bench
) -> None:
    """The broker makes a classic queue of that name; nothing is lost in it."""
    bench.behave = Handling()
    event = tool_run()
    await vhost.publish(event)
    async with bench.consuming():
        await exhausted(bench, ui)
        await ui.move_messages(MISTYPED)
        await ui.see_queued(MISTYPED, 1)
        made = await vhost.ask("GET", f"queues/{{vhost}}/{MISTYPED}")
        assert made["type"] == "classic"

        bench.behave = Handling(0)
        await ui.open_queue(MISTYPED)
        await ui.move_messages(QUEUE)
        await bench.all_done(1)
    assert bench.ids()[-1] == str(event.id)
