"""Every metric of customer-provisioner except those of the messaging library."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from customer_provisioner.circuit import Cause
from customer_provisioner.profile import Counts
from customer_provisioner.stripe.responses import TABLE
from customer_provisioner.subscriptions import SubscriptionCounts

CALLS: Final = (
    "create",
    "link",
    "update",
    "search",
    "list",
    "retrieve",
    "subscription",
    "subscriptions",
    "items",
    "product",
    "meter",
)

ANNOUNCED: Final = ("customer.provisioned", "user.assigned", "subscription.changed")


class Metrics:
    """Each label value starts at 0, so that its first increase is seen; no label holds an id."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "customer_provisioner"
        # Users without a customer: `provisioning`, or `refused` where an operator must act.
        self._users = Gauge(
            f"{prefix}_users", "Users without a customer", ["state"], registry=registry
        )
        # How long the longest-waiting user that is not refused has had no customer.
        self._oldest = Gauge(
            f"{prefix}_oldest_wait_seconds", "Longest wait for a customer", registry=registry
        )
        # Customers whose `customer.provisioned` the broker has not confirmed yet.
        self._unannounced = Gauge(
            f"{prefix}_unannounced_customers", "Customers not announced yet", registry=registry
        )
        # Calls to Stripe by the class of the answer, see `nexus_stripe.answer_classes`.
        self._calls = Counter(
            f"{prefix}_stripe_calls", "Calls to Stripe", ["call", "answer"], registry=registry
        )
        self._seconds = Histogram(
            f"{prefix}_stripe_call_seconds", "Duration of calls", ["call"], registry=registry
        )
        # 1 while the circuit breaker is open or half-open for this cause.
        self._circuit = Gauge(
            f"{prefix}_circuit_open",
            "Whether the circuit breaker is open",
            ["cause"],
            registry=registry,
        )
        # Customers stored: `created`; `adopted` where an earlier call had created the customer;
        # `linked` where the user had one at Stripe before.
        self._customers = Counter(
            f"{prefix}_customers", "Customers stored", ["how"], registry=registry
        )
        # Further customers of a user that has one: an operator checks each at Stripe.
        self._surplus = Counter(
            f"{prefix}_surplus_customers", "Further customers of a user", registry=registry
        )
        # Customers, assignments and subscriptions that the broker has confirmed, by their events.
        self._announced = Counter(
            f"{prefix}_announcements", "Announcements published", ["event"], registry=registry
        )
        # Those of a round that were not: the broker did not confirm them, or one breaks a rule.
        self._left = Gauge(
            f"{prefix}_announcements_left",
            "Announcements that the last round left",
            ["event"],
            registry=registry,
        )
        # `user.created` events whose address differs from the stored one, which stays.
        self._ignored_addresses = Counter(
            f"{prefix}_ignored_addresses", "Later addresses of known users", registry=registry
        )
        # Changes of users: `sent` to Stripe, `refused` by it, `outdated` by a later one.
        self._changes = Counter(
            f"{prefix}_changes", "Changes of users", ["outcome"], registry=registry
        )
        # How long the oldest change that could be sent has waited; refused ones are left out.
        self._oldest_change = Gauge(
            f"{prefix}_oldest_change_wait_seconds", "Longest wait of a change", registry=registry
        )
        # Fetches of subscriptions: `stored`, or `overtaken` by one that was stored meanwhile.
        self._fetches = Counter(
            f"{prefix}_subscription_fetches",
            "Fetches of subscriptions",
            ["outcome"],
            registry=registry,
        )
        # Subscriptions that the nightly sweep found otherwise than the webhooks had said.
        self._lost = Counter(
            f"{prefix}_lost_webhooks", "Subscriptions that webhooks missed", registry=registry
        )
        # Running subscriptions: of no known `account`, or of an account and for no known `plan`.
        self._subscriptions = Gauge(
            f"{prefix}_subscriptions_without",
            "Running subscriptions that lack something",
            ["what"],
            registry=registry,
        )
        # When the last sweep that read all subscriptions began; before there is one, when the first
        # attempt began; 0 where there was none.
        self._swept = Gauge(
            f"{prefix}_subscriptions_swept_timestamp_seconds",
            "Start of the last complete sweep of subscriptions",
            registry=registry,
        )
        # Accounts whose present customer Stripe has deleted: their usage is refused there.
        self._customers_deleted = Gauge(
            f"{prefix}_deleted_customers", "Accounts with a deleted customer", registry=registry
        )
        for event in ANNOUNCED:
            self._announced.labels(event)
            self._left.labels(event)
        for outcome in ("stored", "overtaken"):
            self._fetches.labels(outcome)
        for what in ("account", "plan"):
            self._subscriptions.labels(what)
        for outcome in ("sent", "refused", "outdated"):
            self._changes.labels(outcome)
        for state in ("provisioning", "refused"):
            self._users.labels(state)
        for call in CALLS:
            self._seconds.labels(call)
            for kind in TABLE:
                self._calls.labels(call, kind.name)
        for cause in Cause:
            self._circuit.labels(cause.value)
        for how in ("created", "adopted", "linked"):
            self._customers.labels(how)

    def called(self, call: str, answer: str, seconds: float) -> None:
        """Count a call to Stripe and its duration."""
        self._calls.labels(call, answer).inc()
        self._seconds.labels(call).observe(seconds)

    def circuit(self, cause: Cause | None) -> None:
        """Set what the circuit breaker is open for; None if it is closed."""
        for each in Cause:
            self._circuit.labels(each.value).set(each is cause)

    def stored(self, how: str) -> None:
        """Count a customer that was stored."""
        self._customers.labels(how).inc()

    def surplus(self, customers: int) -> None:
        """Count further customers of a user that has one."""
        self._surplus.inc(customers)

    def announced(self, event: str, number: int, *, left: int) -> None:
        """Count the confirmed announcements of a round, and set how many it left."""
        self._announced.labels(event).inc(number)
        self._left.labels(event).set(left)

    def fetched(self, outcome: str) -> None:
        """Count a fetch of a subscription: ``stored``, or ``overtaken`` by another."""
        self._fetches.labels(outcome).inc()

    def webhook_lost(self) -> None:
        """Count a subscription that the sweep found otherwise than the webhooks had said."""
        self._lost.inc()

    def set_subscriptions(self, counts: SubscriptionCounts, swept_at: datetime | None) -> None:
        """Set the gauges of subscriptions: what they lack, and when they were last swept."""
        self._subscriptions.labels("account").set(counts.without_account)
        self._subscriptions.labels("plan").set(counts.without_plan)
        self._swept.set(swept_at.timestamp() if swept_at else 0)

    def address_ignored(self) -> None:
        """Count an address that did not replace the stored one."""
        self._ignored_addresses.inc()

    def changed(self, outcome: str) -> None:
        """Count a change of a user: ``sent``, ``refused`` or ``outdated``."""
        self._changes.labels(outcome).inc()

    def set_change_wait(self, since: datetime | None, now: datetime) -> None:
        """Set how long the oldest change has waited."""
        self._oldest_change.set((now - since).total_seconds() if since else 0)

    def set_counts(self, counts: Counts, now: datetime) -> None:
        """Set the gauges of users without a customer and of customers not announced."""
        self._users.labels("provisioning").set(counts.provisioning)
        self._users.labels("refused").set(counts.refused)
        self._unannounced.set(counts.unannounced)
        self._customers_deleted.set(counts.customer_deleted)
        since = counts.waiting_since
        self._oldest.set((now - since).total_seconds() if since else 0)
