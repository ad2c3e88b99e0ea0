"""Where each event goes: who publishes it, by which exchange, and who consumes it."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus_contracts import ALL_EVENTS, EventData
from nexus_messaging.router import Router
from nexus_messaging.topology import (
    EVENTS,
    INTERNAL,
    NOTICES,
    OUTSIDE_QUEUES,
    SUBSCRIPTION_PREFIX,
    home_queue,
    rights_of,
)

SUBSCRIBERS: Final = "subscribers"
"""Whoever binds a queue to `notices`."""

OUTSIDE: Final = "publisher"
"""The broker's user of services outside this project."""

GOLDEN: Final = Path(__file__).parent.parent / "libs/contracts/tests/golden"


@dataclass(frozen=True, slots=True)
class Channel:
    """The way of one event: ``senders`` by the exchange that each may publish it to.

    One for ``SUBSCRIBERS`` has no queue of this project, and need not reach any.
    """

    data: type[EventData]
    senders: Mapping[str, tuple[str, ...]]
    queue: str
    consumer: str
    handling: str
    example: Mapping[str, Any]


def channels(routers: Mapping[str, Router]) -> Iterator[Channel]:
    """Yield the way of every event, by the topology and by the services' ``routers``.

    Raises:
        LookupError: an event of ``ALL_EVENTS`` is not read by any handler.
    """
    for data in ALL_EVENTS:
        name, _, _major = data.TYPE.rpartition(".")
        if notifiers := tuple(each for each in routers if name in rights_of(each).notifies):
            senders = {NOTICES: notifiers}
            queue = f"{SUBSCRIPTION_PREFIX}…"
            yield Channel(data, senders, queue, SUBSCRIBERS, "", _example(data.TYPE))
            continue
        queue = home_queue(data.TYPE, "", from_outside=False)
        ours = tuple(each for each in routers if name in rights_of(each).publishes)
        outside = (OUTSIDE,) if queue in OUTSIDE_QUEUES else ()
        senders = {EVENTS: outside, INTERNAL: ours}
        [consumer] = [each for each in routers if queue in rights_of(each).queues]
        routes = [each for each in routers[consumer].routes if data in each.events]
        if not routes:
            raise LookupError(f"{data.TYPE}: no handler of {consumer} reads it")
        yield Channel(
            data,
            {exchange: names for exchange, names in senders.items() if names},
            queue,
            consumer,
            inspect.getdoc(routes[0].function) or "",
            _example(data.TYPE),
        )


def _example(kind: str) -> Mapping[str, Any]:
    """Return the golden message that shows every field, or the only one."""
    full = GOLDEN / f"{kind}.full.json"
    file = full if full.exists() else GOLDEN / f"{kind}.json"
    example: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return example
