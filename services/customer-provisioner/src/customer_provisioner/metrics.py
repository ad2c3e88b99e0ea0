"""Every metric of customer-provisioner beside those of the messaging library, by name."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from customer_provisioner.circuit import Cause
from customer_provisioner.profile import Counts

CALLS: Final = ("create", "search", "list", "retrieve")
ANSWERS: Final = (
    "ok",
    "replayed",
    "refused",
    "busy",
    "throttled",
    "key_refused",
    "key_spent",
    "never_sent",
    "lost",
    "unreadable",
    "unknown",
)


class Metrics:
    """Each label value is born at 0, so that its first increase shows; no label holds an id."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "customer_provisioner"
        # Users without a customer: `provisioning`, or `refused` where only a person helps.
        self._users = Gauge(
            f"{prefix}_users", "Users without a customer", ["state"], registry=registry
        )
        # Seconds the longest-waiting user that was not refused has been without a customer.
        self._oldest = Gauge(
            f"{prefix}_oldest_wait_seconds", "Longest wait for a customer", registry=registry
        )
        # Customers the other services have not been told about yet.
        self._unannounced = Gauge(
            f"{prefix}_unannounced_customers", "Customers not announced yet", registry=registry
        )
        # Calls to Stripe by what came of them; `lost`, `unreadable` and `unknown` may have had
        # their effect.
        self._calls = Counter(
            f"{prefix}_stripe_calls", "Calls to Stripe", ["call", "answer"], registry=registry
        )
        self._seconds = Histogram(
            f"{prefix}_stripe_call_seconds", "Duration of calls", ["call"], registry=registry
        )
        # 1 while Stripe is not called for this cause, but for one call at a time that tries.
        self._circuit = Gauge(
            f"{prefix}_circuit_open", "Whether the circuit is open", ["cause"], registry=registry
        )
        # Customers stored: `created`, or `adopted` where one was found to exist already.
        self._customers = Counter(
            f"{prefix}_customers", "Customers stored", ["how"], registry=registry
        )
        # Customers found beside the one a user has: each is worth a look at Stripe.
        self._surplus = Counter(
            f"{prefix}_surplus_customers", "Second customers of a user", registry=registry
        )
        # `customer.provisioned` events confirmed by the broker.
        self._announced = Counter(
            f"{prefix}_announcements", "Announcements published", registry=registry
        )
        # `user.created` events that came with another address than the one kept.
        self._other_addresses = Counter(
            f"{prefix}_other_addresses", "Other addresses of known users", registry=registry
        )
        for state in ("provisioning", "refused"):
            self._users.labels(state)
        for call in CALLS:
            self._seconds.labels(call)
            for answer in ANSWERS:
                self._calls.labels(call, answer)
        for cause in Cause:
            self._circuit.labels(cause.value)
        for how in ("created", "adopted"):
            self._customers.labels(how)

    def called(self, call: str, answer: str, seconds: float) -> None:
        """Count a call to Stripe and its duration."""
        self._calls.labels(call, answer).inc()
        self._seconds.labels(call).observe(seconds)

    def circuit(self, cause: Cause | None) -> None:
        """Show for what cause Stripe is not called, if it is not."""
        for each in Cause:
            self._circuit.labels(each.value).set(each is cause)

    def stored(self, how: str) -> None:
        """Count a customer that was stored."""
        self._customers.labels(how).inc()

    def surplus(self, customers: int) -> None:
        """Count customers found beside the one that a user has."""
        self._surplus.inc(customers)

    def announced(self, customers: int) -> None:
        """Count confirmed announcements."""
        self._announced.inc(customers)

    def other_address(self) -> None:
        """Count an address that was not taken over."""
        self._other_addresses.inc()

    def show(self, counts: Counts, now: datetime) -> None:
        """Show who waits, and for how long."""
        self._users.labels("provisioning").set(counts.provisioning)
        self._users.labels("refused").set(counts.refused)
        self._unannounced.set(counts.unannounced)
        since = counts.waiting_since
        self._oldest.set((now - since).total_seconds() if since else 0)
