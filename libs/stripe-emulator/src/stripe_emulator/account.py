"""One Stripe account: all its state, and what its endpoints do with it."""

from decimal import Decimal
from typing import Any

from stripe_emulator import events, search, summaries
from stripe_emulator.clock import Clock
from stripe_emulator.customer_clocks import MAX_CUSTOMERS, MAX_SUBSCRIPTIONS, CustomerClocks
from stripe_emulator.customers import Customers
from stripe_emulator.deliveries import Deliveries
from stripe_emulator.error_reports import ErrorReports
from stripe_emulator.errors import StripeError, no_such, refused
from stripe_emulator.event_log import EventLog
from stripe_emulator.expansion import Retrieve, without_tiers
from stripe_emulator.faults import Faults
from stripe_emulator.features import Features, summary
from stripe_emulator.idempotency import IdempotencyStore
from stripe_emulator.ids import new_id
from stripe_emulator.invoices import Invoices
from stripe_emulator.keys import ApiKeys
from stripe_emulator.later_validation import LaterValidation
from stripe_emulator.limits import RateLimits
from stripe_emulator.meters import Meters
from stripe_emulator.objects import Objects
from stripe_emulator.options import Options
from stripe_emulator.prices import PRICE_FIELDS, Prices
from stripe_emulator.products import PRODUCT_FIELDS, Products
from stripe_emulator.request_log import RequestLog
from stripe_emulator.subscriptions import Subscriptions
from stripe_emulator.webhook_endpoints import WebhookEndpoints


class StripeAccount:
    """The account behind the API; it lives in memory and knows nothing of HTTP."""

    def __init__(self, options: Options | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.options = options or Options()
        self.keys = ApiKeys()
        self.limits = RateLimits()
        self.idempotency = IdempotencyStore()
        self.faults = Faults()
        self.request_log = RequestLog()
        self.event_log = EventLog(self.clock)
        record = self.event_log.record
        self.customers = Customers(record)
        self.meters = Meters()
        self.products = Products(record)
        self.prices = Prices(self.products, self.meters, record)
        self.features = Features(self.products)
        self.customer_clocks = CustomerClocks(self.clock, record)
        self.invoices = Invoices(
            self.prices,
            self._used,
            self.customer_clocks.now,
            lambda: self.options.invoice_grace_seconds,
        )
        self.subscriptions = Subscriptions(
            self.prices, self.customer_clocks.now, self.invoices.bill, self._subscription_changed
        )
        self.webhook_endpoints = WebhookEndpoints()
        self.deliveries = Deliveries(self.webhook_endpoints, self.clock, lambda: self.options)
        self.event_log.listener = self.deliveries.plan
        self._entitled: dict[str, list[dict[str, Any]]] = {}
        self.events = events.MeterEvents()
        reports = ErrorReports(
            self.clock, self.event_log.add, lambda: self.options.error_report_seconds
        )
        self.later_validation = LaterValidation(reports)

    def settle(self) -> None:
        """Make what time has brought by itself since the last look at the clock."""
        moved = self.customer_clocks.move()
        self.subscriptions.settle()
        self.invoices.settle()
        self.customer_clocks.finish(moved)
        self.later_validation.reports.settle()

    def record_event(self, params: dict[str, Any]) -> dict[str, Any]:
        """Accept a meter event read by ``CREATE_EVENT``, or refuse it by the first rule it breaks.

        The order of the rules: time, meter, customer, value, identifier. An accepted event is
        counted unless it is found out later that it should not be.
        """
        now = self.clock.now()
        their_now = self._time_of_payer(params)
        timestamp = params.get("timestamp", int(their_now))
        events.require_timely(timestamp, their_now)
        meter = events.require_meter(
            self.meters.active_for(params["event_name"]), params["event_name"]
        )
        customer = events.customer_of(meter, params["payload"])
        customer_exists = self.customers.exists(customer)
        if not customer_exists and not self.options.unknown_customers_later:
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
        key = params.get("idempotency_key")
        if self.later_validation.passes(event, key, customer_exists=customer_exists):
            self.events.count(event)
        return event.view()

    def _time_of_payer(self, params: dict[str, Any]) -> float:
        """Return the time by the clock of the customer whom an event is for, as far as it says."""
        meter = self.meters.active_for(params["event_name"])
        customer = params["payload"].get(meter.customer_key, "") if meter else ""
        return self.customer_clocks.now(self.customers.clock_of(customer))

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

    def _used(self, meter_id: str, customer: str, period: tuple[int, int]) -> Decimal:
        """Return what a meter has counted by now of a customer's usage in a period."""
        events_ = self.events.of(meter_id, customer)
        inside = [each for each in events_ if period[0] <= each.timestamp < period[1]]
        return summaries.aggregate(self.meters.get(meter_id), inside)

    def search_customers(self, params: dict[str, Any]) -> dict[str, Any]:
        """Search the customers as they were when the index was last brought up to date."""
        query = search.parse(params["query"])
        indexed = self.customers.as_of(self.clock.now() - self.options.search_lag_seconds)
        return search.search_result([one for one in indexed if query.matches(one)], params)

    def search_products(self, params: dict[str, Any]) -> dict[str, Any]:
        """Search the products, with the same lag."""
        return self._search(self.products.objects, PRODUCT_FIELDS, "/v1/products", params)

    def search_prices(self, params: dict[str, Any]) -> dict[str, Any]:
        """Search the prices, with the same lag."""
        return self._search(self.prices.objects, PRICE_FIELDS, "/v1/prices", params)

    def _search(
        self, objects: Objects, fields: tuple[str, ...], url: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        query = search.parse(params["query"], fields)
        indexed = objects.as_of(self.clock.now() - self.options.search_lag_seconds)
        return search.search_result([one for one in indexed if query.matches(one)], params, url)

    def update_product(self, id_: str, params: dict[str, Any]) -> dict[str, Any]:
        """Change a product; its default price must be one of its own."""
        if params.get("default_price") is not None:
            price = self.prices.objects.get(params["default_price"], "default_price", 400)
            if price["product"] != id_:
                raise refused("The default price must be a price of the product.", "default_price")
        return self.products.update(id_, params, self.clock.now())

    def delete_product(self, id_: str) -> dict[str, Any]:
        """Delete a product that has no prices."""
        if self.prices.has_product(id_):
            raise refused(
                "This product cannot be deleted because it has one or more user-created prices."
            )
        return self.products.delete(id_, self.clock.now())

    def create_customer(self, params: dict[str, Any]) -> dict[str, Any]:
        """Create a customer, who may belong to a test clock."""
        test_clock = params.get("test_clock")
        if test_clock is not None:
            self.customer_clocks.get(test_clock, "test_clock", 400)
            if len(self.customers.of_clock(test_clock)) >= MAX_CUSTOMERS:
                raise refused(f"A test clock has at most {MAX_CUSTOMERS} customers.", "test_clock")
        return self.customers.create(params, self.clock.now())

    def create_subscription(self, params: dict[str, Any]) -> dict[str, Any]:
        """Create a subscription of a customer, by the customer's clock."""
        customer = params["customer"]
        if not self.customers.exists(customer):
            raise no_such("customer", customer, "customer", 400)
        test_clock = self.customers.clock_of(customer)
        if test_clock is not None:
            same = self.subscriptions.listed({"customer": customer})["data"]
            if len(same) >= MAX_SUBSCRIPTIONS:
                message = f"A test clock's customer has at most {MAX_SUBSCRIPTIONS} subscriptions."
                raise refused(message, "customer")
        return self.subscriptions.create(params, test_clock)

    def advance_clock(self, id_: str, target: int) -> dict[str, Any]:
        """Begin to advance a test clock; it is ready at the next look at the time."""
        self.customer_clocks.get(id_)
        return self.customer_clocks.advance(id_, target, self.subscriptions.furthest(id_))

    def delete_clock(self, id_: str) -> dict[str, Any]:
        """Delete a test clock with its customers."""
        for customer in self.customers.of_clock(id_):
            self.delete_customer(customer)
        self.subscriptions.forget_clock(id_)
        self.invoices.forget_clock(id_)
        return self.customer_clocks.delete(id_)

    def delete_customer(self, id_: str) -> dict[str, Any]:
        """Delete a customer, whose subscriptions end with it."""
        if self.customers.exists(id_):
            self.subscriptions.cancel_all_of(id_)
        return self.customers.delete(id_, self.clock.now())

    def list_entitlements(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of what a customer may use."""
        products = self.subscriptions.products_of(params["customer"])
        return self.features.listed_entitlements(products, params)

    def _subscription_changed(
        self, kind: str, subscription: dict[str, Any], before: dict[str, Any] | None
    ) -> None:
        """Record the event of a subscription, and that of its customer's entitlements."""
        record, customer = self.event_log.record, subscription["customer"]
        shown_before = None if before is None or kind == "deleted" else without_tiers(before)
        record(f"customer.subscription.{kind}", without_tiers(subscription), shown_before)

        products = self.subscriptions.products_of(customer)
        entitled = self.features.entitlements(customer, products)
        entitled_before = self._entitled.get(customer, [])
        if entitled != entitled_before:
            self._entitled[customer] = entitled
            record(
                "entitlements.active_entitlement_summary.updated",
                summary(customer, entitled),
                summary(customer, entitled_before),
            )

    def retrievals(self) -> dict[str, Retrieve]:
        """Return how an object is retrieved whose id a field of an answer has."""
        return {
            "customer": self.customers.retrieve,
            "default_price": self.prices.objects.get,
            "feature": self.features.objects.get,
            "product": self.products.objects.get,
        }

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
