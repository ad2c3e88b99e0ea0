"""The events of the account: what changed, as it was right after the change."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from stripe_emulator.clock import Clock
from stripe_emulator.errors import no_such, no_such_in_v2
from stripe_emulator.ids import new_id
from stripe_emulator.pages import page
from stripe_emulator.parameters import (
    CREATED,
    PAGING,
    Boolean,
    Parameters,
    Text,
    Texts,
    is_within,
)
from stripe_emulator.thin_events import THIN, list_thin_events

API_VERSION = "2026-05-27.dahlia"
"""The account's version: of answers and events for which no other one is asked for."""

KEPT_EVENTS = 10_000
"""Events that are kept, where Stripe keeps those of 30 days."""

LIST_EVENTS = Parameters(
    {
        **PAGING,
        "created": CREATED,
        "delivery_success": Boolean(),
        "type": Text(),
        "types": Texts(),
    }
)


class Record(Protocol):
    """Records an event of the account."""

    def __call__(
        self, type_: str, changed: Mapping[str, Any], before: Mapping[str, Any] | None = None, /
    ) -> None:
        """Record that an object changed, and what it was before."""


def record_nothing(
    _type: str, _changed: Mapping[str, Any], _before: Mapping[str, Any] | None = None, /
) -> None:
    """Record nothing, for an account whose events nobody reads."""


class EventLog:
    """The last events, the oldest first; whoever listens gets each as soon as it is there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: dict[str, dict[str, Any]] = {}
        self.listener: Callable[[dict[str, Any]], None] = lambda _: None

    def record(
        self, type_: str, changed: Mapping[str, Any], before: Mapping[str, Any] | None = None, /
    ) -> None:
        """Record a snapshot event about an object."""
        self.add(self.snapshot(type_, changed, before))

    def snapshot(
        self, type_: str, changed: Mapping[str, Any], before: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a snapshot event about an object, which is not in the log yet."""
        data: dict[str, Any] = {"object": copy.deepcopy(dict(changed))}
        if before is not None:
            data["previous_attributes"] = {
                name: copy.deepcopy(value)
                for name, value in before.items()
                if changed.get(name) != value
            }
        return {
            "id": new_id("evt", 24),
            "object": "event",
            "api_version": API_VERSION,
            "created": int(self._clock.now()),
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": type_,
        }

    def add(self, event: dict[str, Any]) -> None:
        """Add an event as it is, and pass it on."""
        self._events[event["id"]] = event
        if len(self._events) > KEPT_EVENTS:
            del self._events[next(iter(self._events))]
        self.listener(event)

    def get(self, id_: str) -> dict[str, Any]:
        """Return an event of either kind; 404 when there is none."""
        event = self._events.get(id_)
        if event is None:
            raise no_such("event", id_)
        return event

    def get_snapshot(self, id_: str) -> dict[str, Any]:
        """Return a snapshot event, which API v1 has; 404 when there is none."""
        event = self.get(id_)
        if event["object"] == THIN:
            raise no_such("event", id_)
        return event

    def get_thin(self, id_: str) -> dict[str, Any]:
        """Return a thin event; 404, as API v2 says it, when there is none."""
        event = self._events.get(id_)
        if event is None or event["object"] != THIN:
            raise no_such_in_v2("event", id_)
        return event

    def listed_thin(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of thin events, the newest first."""
        thin = (event for event in reversed(self._events.values()) if event["object"] == THIN)
        return list_thin_events(thin, params)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of snapshot events, the newest first."""
        types = params.get("types", [params["type"]] if "type" in params else None)
        found = [
            event
            for event in reversed(self._events.values())
            if event["object"] == "event"
            and (types is None or event["type"] in types)
            and is_within(event["created"], params.get("created", {}))
        ]
        return page(found, "/v1/events", "event", params)
