"""An error where nobody expects one, at every step between a delivery and its ack."""

import pytest

from integration.messaging.bench import DEAD_LETTERS, Bench, DownError
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, HandedBack, Outcome
from nexus_messaging.settlement import Settlement
from rig.events import tool_run
from rig.vhost import Vhost
from rig.waiting import eventually

MESSAGES = 40

STEPS = (
    (Consumer, "take"),
    (Settlement, "settle"),
    (Consumer, "ack"),
    (Consumer, "_send_acks"),
    (Consumer, "_widen"),
    (Consumption, "_dead_letter_if_crashing"),
    (Consumption, "_hand_back"),
    (Consumption, "_shut_and_hand_back"),
)
"""All that is awaited between a delivery and its ack, but the handler: its errors are foreseen."""


FROM_CALL = {"_widen": 1, "_hand_back": 1, "_shut_and_hand_back": 1}
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


async def seen(bench: Bench) -> set[str | None]:
    """Return the ids of what was handled."""
    return set(bench.ids())
