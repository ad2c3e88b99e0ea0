"""One Stripe account: all its state, and what its endpoints do with it."""

from typing import Any

from stripe_emulator import events, search, summaries
from stripe_emulator.clock import Clock
from stripe_emulator.customers import Customers
from stripe_emulator.errors import StripeError
from stripe_emulator.faults import Faults
from stripe_emulator.idempotency import IdempotencyStore
from stripe_emulator.ids import new_id
from stripe_emulator.keys import ApiKeys
from stripe_emulator.limits import RateLimits
from stripe_emulator.meters import Meters
from stripe_emulator.options import Options
from stripe_emulator.request_log import RequestLog


class Account:
    """The account behind the API; it lives in memory and knows nothing of HTTP."""

    def __init__(self, options: Options | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.options = options or Options()
        self.keys = ApiKeys()
        self.limits = RateLimits()
        self.idempotency = IdempotencyStore()
        self.faults = Faults()
        self.request_log = RequestLog()
        self.customers = Customers()
        self.meters = Meters()
        self.events = events.MeterEvents()

    def record_event(self, params: dict[str, Any]) -> dict[str, Any]:
        """Accept a meter event read by ``CREATE_EVENT``, or refuse it by the first rule it breaks.

        The order of the rules: time, meter, customer, value, identifier.
        """
        now = self.clock.now()
        timestamp = params.get("timestamp", int(now))
        events.require_timely(timestamp, now)
        meter = events.require_meter(
            self.meters.active_for(params["event_name"]), params["event_name"]
        )
        customer = events.customer_of(meter, params["payload"])
        if not self.customers.exists(customer):
            raise events.unknown_customer(meter, customer)
        event = events.MeterEvent(
            identifier=params.get("identifier") or new_id("mevt", 24),
            event_name=meter.event_name,
            meter=meter.id,
            customer=customer,
            value=events.value_of(meter, params["payload"]),
            timestamp=timestamp,
            received=now,
            payload=params["payload"],
        )
        try:
            self.events.accept(event)
        except StripeError:
            self.request_log.count_duplicate(event.identifier)
            raise
        self.request_log.count_accepted(event.identifier)
        return event.view()

    def cancel_event(self, params: dict[str, Any]) -> dict[str, Any]:
        """Cancel an event as asked by ``CANCEL_EVENT`` and return the adjustment object."""
        identifier = params["cancel"]["identifier"]
        self.events.cancel(params["event_name"], identifier, self.clock.now())
        return {
            "object": "billing.meter_event_adjustment",
            "cancel": params["cancel"],
            "event_name": params["event_name"],
            "livemode": False,
            "status": "pending",
            "type": "cancel",
        }

    def summarise(self, meter_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return a page of the summaries of one customer, with the delay of the options."""
        meter = self.meters.get(meter_id)
        customer = params["customer"]
        if not self.customers.exists(customer):
            raise summaries.unknown_customer(customer)
        settled = self.clock.now() - self.options.summary_delay_seconds
        visible = [e for e in self.events.of(meter.id, customer) if e.received <= settled]
        return summaries.list_summaries(meter, customer, visible, params)

    def search_customers(self, params: dict[str, Any]) -> dict[str, Any]:
        """Search the customers as they were when the index was last brought up to date."""
        query = search.parse(params["query"])
        indexed = self.customers.as_of(self.clock.now() - self.options.search_lag_seconds)
        return search.search_result([one for one in indexed if query.matches(one)], params)

    def sums(self) -> list[dict[str, Any]]:
        """Return what every meter counted for every customer, without any delay."""
        counted = []
        for (meter_id, customer), accepted in self.events.by_meter_and_customer().items():
            meter = self.meters.get(meter_id)
            counted.append(
                {
                    "customer": customer,
                    "meter": meter_id,
                    "event_name": meter.event_name,
                    "value": summaries.number(summaries.aggregate(meter, accepted)),
                    "events": len(accepted),
                }
            )
        return counted
