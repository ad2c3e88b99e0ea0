"""The deliveries of events to endpoints: which are due, and what followed from each attempt."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from stripe_emulator.clock import Clock
from stripe_emulator.delivery_faults import DeliveryFaults
from stripe_emulator.ids import new_id
from stripe_emulator.options import Options
from stripe_emulator.webhook_endpoints import WebhookEndpoints

_HOUR = 3600
RETRY_SECONDS = (300, 1800, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, *(12 * _HOUR,) * 4)
"""The waits before each further attempt: three days in all, as Stripe's documentation says of live
mode (https://docs.stripe.com/webhooks#automatic-retries). The single waits are only likely."""


KEPT_DELIVERIES = 10_000
"""Deliveries that can be listed; of what is not finished, more."""


class DeliveryState(StrEnum):
    """Where a delivery is."""

    HELD = "held"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """No attempt is left."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to an endpoint; ``status`` is None if there was no answer, and why is said."""

    at: float
    status: int | None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """Return whether the endpoint took the event."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's


@dataclass(slots=True)
class Delivery:
    """One event to one endpoint; ``due`` is when the next attempt is, on the account's clock."""

    id: str
    event: dict[str, Any]
    endpoint: str
    state: DeliveryState
    due: float
    attempts: list[Attempt] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        """Return the delivery as JSON, the event by its id and type."""
        return {
            "id": self.id,
            "event": self.event["id"],
            "type": self.event["type"],
            "endpoint": self.endpoint,
            "state": self.state.value,
            "due": self.due,
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }


class Deliveries:
    """The last deliveries, in the order of their events."""

    def __init__(
        self, endpoints: WebhookEndpoints, clock: Clock, options: Callable[[], Options]
    ) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._options = options
        self._all: dict[str, Delivery] = {}
        self._open: dict[str, Delivery] = {}
        self.faults = DeliveryFaults()
        self.planned: Callable[[], None] = lambda: None

    def plan(self, event: dict[str, Any]) -> None:
        """Plan the deliveries of a new event."""
        for endpoint in self._endpoints.wanting(event["type"]):
            for delay in self.faults.delays(event["type"]):
                self.add(event, endpoint["id"], delay)
        self.planned()

    def add(self, event: dict[str, Any], endpoint: str, delay: float | None) -> Delivery:
        """Add a delivery that is due after ``delay`` seconds; None: once it is released."""
        state = DeliveryState.HELD if delay is None else DeliveryState.SCHEDULED
        due = self._clock.now() + (delay or 0.0)
        delivery = Delivery(new_id("whd", 14), event, endpoint, state, due)
        self._all[delivery.id] = self._open[delivery.id] = delivery
        oldest = next(iter(self._all))
        if len(self._all) > KEPT_DELIVERIES and oldest not in self._open:
            del self._all[oldest]
        return delivery

    def take_due(self) -> list[Delivery]:
        """Return what is to be sent now, the earliest first, and mark it so."""
        now = self._clock.now()
        due = [
            delivery
            for delivery in self._open.values()
            if delivery.state is DeliveryState.SCHEDULED and delivery.due <= now
        ]
        for delivery in due:
            delivery.state = DeliveryState.SENDING
        return sorted(due, key=lambda delivery: delivery.due)

    def take_held(self, ids: list[str] | None) -> Iterator[Delivery]:
        """Yield held deliveries one by one, in the order of ``ids`` or else of their events.

        Raises:
            KeyError: There is no such delivery.
        """
        chosen = [self._all[id_] for id_ in (self._all if ids is None else ids)]
        for delivery in chosen:
            if delivery.state is DeliveryState.HELD:
                delivery.state = DeliveryState.SENDING
                yield delivery

    def finish(self, delivery: Delivery, attempt: Attempt) -> None:
        """Note an attempt, and plan the next one if it failed."""
        delivery.attempts.append(attempt)
        failures = len(delivery.attempts)
        if attempt.succeeded:
            delivery.state = DeliveryState.DELIVERED
        elif failures > len(RETRY_SECONDS):
            delivery.state = DeliveryState.FAILED
        else:
            wait = RETRY_SECONDS[failures - 1] * self._options().webhook_retry_scale
            delivery.state, delivery.due = DeliveryState.SCHEDULED, self._clock.now() + wait
            return
        del self._open[delivery.id]

    def listed(self) -> list[dict[str, Any]]:
        """Return all deliveries as JSON, in the order of their events."""
        return [delivery.view() for delivery in self._all.values()]
