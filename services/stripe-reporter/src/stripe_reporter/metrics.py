"""Every metric of stripe-reporter, by name; each label value is there from the start."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stripe_reporter.circuit import Cause
from stripe_reporter.rejections import Verdict
from stripe_reporter.stripe.responses import TABLE, Response

SEND, LIST_METERS = "meter_event", "list_meters"
ERROR_REPORT, HOURLY_SUMS = "error_report", "hourly_sums"
CALLS: Final = (SEND, LIST_METERS, ERROR_REPORT, HOURLY_SUMS)
READINGS: Final = ("read", "not_read", "no_meter")
OUTCOMES: Final = (
    "reported",
    "reported_again",
    "rejected",
    "rejected_later",
    "fenced",
    "taken",
    "waiting",
    "deferred",
    "customer_busy",
)
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAYS: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)


class ReporterMetrics:
    """The calls to Stripe, its answers, and what became of the reports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Calls by operation and by what their answers mean: names in the table of responses.
        # `list_meters` is the circuit breaker's probe.
        self._calls = Counter(
            "stripe_reporter_calls", "Calls to Stripe", ["call", "answer"], registry=registry
        )
        # How long Stripe took to answer.
        self._call_seconds = Histogram(
            "stripe_reporter_call_seconds",
            "Time of a call",
            ["call"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Deliveries by what became of their reports; `fenced` and `taken` need a person.
        self._reports = Counter(
            "stripe_reporter_reports", "Deliveries of reports", ["outcome"], registry=registry
        )
        # From a report's earliest tool run until Stripe had counted it.
        self._delay = Histogram(
            "stripe_reporter_report_delay_seconds",
            "Age of reports when counted",
            buckets=_DELAYS,
            registry=registry,
        )
        # 1 while no report can be sent for this cause.
        self._circuit = Gauge(
            "stripe_reporter_circuit_open",
            "Whether the circuit is open",
            ["cause"],
            registry=registry,
        )
        # Calls per second that are let through, fewer after 429s.
        self._rate = Gauge(
            "stripe_reporter_calls_per_second_allowed",
            "Calls per second allowed",
            registry=registry,
        )
        # How long a call waited for the limit of calls per second.
        self._wait_seconds = Histogram(
            "stripe_reporter_limiter_wait_seconds",
            "Wait for the limiter",
            buckets=_SECONDS,
            registry=registry,
        )
        # Reports being worked on, those that wait for their customer's turn included.
        self._in_hand = Gauge("stripe_reporter_in_hand", "Reports in hand", registry=registry)
        # Errors of meters that Stripe reported after it had accepted; it names samples only.
        self._errors = Counter(
            "stripe_reporter_meter_errors", "Errors that Stripe reported later", registry=registry
        )
        # The samples by what they are: `new`; `foreign` are not our requests.
        self._samples = Counter(
            "stripe_reporter_meter_error_samples",
            "Samples of errors that Stripe reported later",
            ["sample"],
            registry=registry,
        )
        # Attempts that Stripe does not count after all, by what that means for their reports.
        self._later = Counter(
            "stripe_reporter_late_rejections",
            "Attempts that were rejected later",
            ["verdict"],
            registry=registry,
        )
        # How long a rejection has been known whose report is accepted, and the ledger unaware.
        self._unannounced = Gauge(
            "stripe_reporter_oldest_rejection_seconds",
            "Oldest rejection that is not announced",
            registry=registry,
        )
        # Readings of a customer's and meter's sums at Stripe.
        self._readings = Counter(
            "stripe_reporter_sums_read", "Readings of Stripe's sums", ["outcome"], registry=registry
        )
        # Customers' meters that are due to be read, and for how long the oldest has been.
        self._sums_due = Gauge("stripe_reporter_sums_due", "Sums to be read", registry=registry)
        self._sums_overdue = Gauge(
            "stripe_reporter_sums_overdue_seconds",
            "Time since the oldest sums were due",
            registry=registry,
        )
        # How long the outcome of some call has been unknown; the fence is at 23 hours.
        self._unknown = Gauge(
            "stripe_reporter_oldest_unknown_seconds", "Oldest unknown outcome", registry=registry
        )
        self._seconds_of = {call: self._call_seconds.labels(call) for call in CALLS}
        for call in CALLS:
            for row in TABLE:
                self._calls.labels(call, row.name)
        for outcome in OUTCOMES:
            self._reports.labels(outcome)
        for cause in Cause:
            self._circuit.labels(cause.value)
        for outcome in READINGS:
            self._readings.labels(outcome)
        for sample in ("new", "foreign"):
            self._samples.labels(sample)
        for verdict in Verdict:
            self._later.labels(verdict.value)

    def called(self, call: str, response: Response, seconds: float) -> None:
        """Count a call, which is one of ``CALLS``, and its answer."""
        self._calls.labels(call, response.name).inc()
        self._seconds_of[call].observe(seconds)

    def waited(self, seconds: float) -> None:
        """Note how long a call waited for its turn."""
        self._wait_seconds.observe(seconds)

    def handled(self, outcome: str, counted_after: float | None = None) -> None:
        """Count a delivery by one of ``OUTCOMES``.

        ``counted_after`` is the age of its report in seconds when Stripe counted it.
        """
        self._reports.labels(outcome).inc()
        if counted_after is not None:
            self._delay.observe(counted_after)

    def circuit(self, cause: Cause | None) -> None:
        """Show why the circuit is open, or that it is closed."""
        for each in Cause:
            self._circuit.labels(each.value).set(each is cause)

    def watch_rate(self, rate: Callable[[], float]) -> None:
        """Read the calls per second that are allowed whenever metrics are collected."""
        self._rate.set_function(rate)

    def watch_work(self, in_hand: Callable[[], int]) -> None:
        """Read how many reports are in hand whenever metrics are collected."""
        self._in_hand.set_function(in_hand)

    def heard(self, errors: int, *, new: int, foreign: int) -> None:
        """Count the errors that one event at Stripe tells of, and its samples."""
        self._errors.inc(errors)
        self._samples.labels("new").inc(new)
        self._samples.labels("foreign").inc(foreign)

    def judged(self, verdict: Verdict) -> None:
        """Count an attempt that Stripe does not count by what it means for its report."""
        self._later.labels(verdict.value).inc()

    def unannounced_for(self, seconds: float) -> None:
        """Show for how many seconds the oldest rejection has not been announced to the ledger."""
        self._unannounced.set(seconds)

    def read_sums(self, outcome: str) -> None:
        """Count a reading by one of ``READINGS``."""
        self._readings.labels(outcome).inc()

    def sums_due(self, due: int, overdue: float) -> None:
        """Show how many readings are due, and for how many seconds the oldest has been."""
        self._sums_due.set(due)
        self._sums_overdue.set(overdue)

    def unknown_for(self, seconds: float) -> None:
        """Show for how long the oldest unknown outcome has been unknown, in seconds."""
        self._unknown.set(seconds)
