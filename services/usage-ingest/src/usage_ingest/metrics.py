"""Every metric of usage-ingest beside those of the messaging library, by name.

Each label value starts at 0, so that its first increase shows; no label holds an id. Several
processes may run at once: counters add up, and gauges on the ledger are the same from each.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nexus_messaging.reasons import Reason
from nexus_plans import NoPrice
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingState
from usage_ingest.periods import Placement
from usage_ingest.reconciliation import DifferenceKind
from usage_ingest.storage.counted import Compared
from usage_ingest.stripes_word import DifferenceCount

REPORT_STEPS: Final = (
    "created",
    "shadow",
    "forwarded",
    "not_forwarded",
    "set_aside",
    "reported",
    "rejected",
    "rejected_later",
    "superseded",
)
THRESHOLD_STEPS: Final = ("announced", "not_announced")
UNREADABLE: Final = "unreadable"
REFUSALS: Final = (UNREADABLE, Reason.TIMESTAMP_IN_FUTURE.value, Reason.UNSTORABLE.value)
OUTCOMES: Final = (
    *(state.value for state in BillingState if state is not BillingState.CLAIMED),
    "details_added",
    "duplicate",
    "id_taken",
    "held_by_newer",
    *REFUSALS,
)
NOT_PRICED: Final = ("no_price", "no_model", "no_tokens", "too_much")
UNFINISHED_EVENTS: Final = ("waiting", "due")
UNFINISHED_REPORTS: Final = ("pending", "forwarded", "rejected", "rejected_later")

_DELAYS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0)
_LAGS: Final = (10.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 21600.0, 86400.0)
_SIZES: Final = (1, 5, 25, 50, 100, 200, 300, 400, 500)


class IngestMetrics:
    """What was recorded, and what became of the reports."""

    def __init__(self, registry: CollectorRegistry, *, meters: Iterable[str]) -> None:
        prefix = "usage_ingest"
        # Tool runs by their billing state, or by why they were not recorded.
        self._events = Counter(
            f"{prefix}_events", "Tool runs received", ["outcome"], registry=registry
        )
        # New events whose metadata can't be stored: recorded and billed without it.
        self._metadata_left_out = Counter(
            f"{prefix}_metadata_left_out", "Events kept without metadata", registry=registry
        )
        # From a tool run until its commit, of new events that are not too old to be billed.
        self._delay = Histogram(
            f"{prefix}_event_to_ledger_seconds",
            "Age of events when recorded",
            buckets=_DELAYS,
            registry=registry,
        )
        # Events of one recording transaction.
        self._batch_size = Histogram(
            f"{prefix}_batch_size", "Events in a batch", buckets=_SIZES, registry=registry
        )
        # Billable quantities by meter: recorded, and counted by Stripe.
        self._recorded_value = Counter(
            f"{prefix}_recorded_value", "Quantity recorded", ["meter"], registry=registry
        )
        self._reported_value = Counter(
            f"{prefix}_reported_value", "Quantity reported", ["meter"], registry=registry
        )
        # Readings of claimed events that their account's plan charges on no meter.
        self._without_meter = Counter(
            f"{prefix}_readings_without_meter", "Readings charged on no meter", registry=registry
        )
        # Events that were claimed, and reports by what became of them.
        self._claimed = Counter(f"{prefix}_events_claimed", "Events reported", registry=registry)
        self._reports = Counter(f"{prefix}_reports", "Reports by step", ["step"], registry=registry)
        # Runs whose tokens should be charged by what they cost, and are not, by why.
        self._not_priced = Counter(
            f"{prefix}_runs_not_priced", "Runs without a cost", ["reason"], registry=registry
        )
        # Those that lacked a price: priced later, or given up, and the readings that were claimed.
        self._runs_priced_late = Counter(
            f"{prefix}_runs_priced_late", "Runs priced later", ["outcome"], registry=registry
        )
        self._late_readings = Counter(
            f"{prefix}_late_readings_claimed", "Late readings reported", registry=registry
        )
        self._unpriced_now = Gauge(
            f"{prefix}_unpriced_runs", "Runs that lack a price", registry=registry
        )
        self._oldest_unpriced = Gauge(
            f"{prefix}_oldest_unpriced_run_seconds", "Age of the oldest", registry=registry
        )
        # Unfinished events and reports, counted up to a limit, and the age of the oldest: of events
        # since the tool ran, of reports since they were made.
        self._events_now = Gauge(
            f"{prefix}_events_in_state", "Unfinished events", ["state"], registry=registry
        )
        self._oldest_event = Gauge(
            f"{prefix}_oldest_event_seconds", "Age of the oldest", ["state"], registry=registry
        )
        self._reports_now = Gauge(
            f"{prefix}_reports_in_state", "Unfinished reports", ["state"], registry=registry
        )
        self._oldest_report = Gauge(
            f"{prefix}_oldest_report_seconds", "Age of the oldest", ["state"], registry=registry
        )
        # 1 while REPORTING_PAUSED keeps reports from being made and forwarded.
        self._reporting_paused = Gauge(
            f"{prefix}_reporting_paused", "Reporting is paused", registry=registry
        )
        # Reports that Stripe accepted, a minute later, by whether they are on an invoice; again
        # where news of a subscription places them elsewhere.
        self._placed = Counter(
            f"{prefix}_reports_placed", "Accepted reports", ["placement"], registry=registry
        )
        # The setting that the age of waiting events is compared with.
        self._waiting_allowed = Gauge(
            f"{prefix}_waiting_allowed_seconds",
            "How long usage may wait for a customer",
            registry=registry,
        )
        # Hours whose sum at Stripe is not the ledger's, by what the difference is.
        self._differences_found = Counter(
            f"{prefix}_differences_found", "Differences found", ["kind"], registry=registry
        )
        self._differences_closed = Counter(
            f"{prefix}_differences_closed", "Differences that are none any more", registry=registry
        )
        self._differences_now = Gauge(
            f"{prefix}_differences", "Open differences", ["kind"], registry=registry
        )
        # Since it was first seen.
        self._oldest_difference = Gauge(
            f"{prefix}_oldest_difference_seconds",
            "Age of the oldest open difference",
            ["kind"],
            registry=registry,
        )
        # From Stripe's last answer in an hour to the first reading that showed all of the hour, if
        # an earlier one did not: at most so long did Stripe take.
        self._stripe_lag = Histogram(
            f"{prefix}_stripe_lag_seconds",
            "Time until Stripe's sums show what it accepted",
            buckets=_LAGS,
            registry=registry,
        )
        self._last_reading = Gauge(
            f"{prefix}_last_reading_seconds",
            "Time since Stripe's sums were read last",
            registry=registry,
        )
        # Seconds since all that was recorded, or reported, was folded into the totals by hour.
        self._totals_age = Gauge(
            f"{prefix}_totals_age_seconds", "Age of the folded totals", ["part"], registry=registry
        )
        # Shares of limits that were reached, by whether the broker confirmed the announcement.
        self._thresholds = Counter(
            f"{prefix}_thresholds", "Thresholds reached", ["step"], registry=registry
        )
        # Changes of subscriptions that were ignored, because a higher revision is stored.
        self._outdated_subscriptions = Counter(
            f"{prefix}_outdated_subscriptions", "Subscriptions ignored as older", registry=registry
        )
        # Unix time of these figures.
        self._measured = Gauge(
            f"{prefix}_measured_timestamp_seconds", "Time of the figures", registry=registry
        )
        _touch(self._events, OUTCOMES)
        _touch(self._reports, REPORT_STEPS)
        _touch(self._thresholds, THRESHOLD_STEPS)
        _touch(self._not_priced, NOT_PRICED)
        _touch(self._runs_priced_late, ("priced", "given_up"))
        _touch(self._events_now, UNFINISHED_EVENTS)
        _touch(self._oldest_event, UNFINISHED_EVENTS)
        _touch(self._reports_now, UNFINISHED_REPORTS)
        _touch(self._oldest_report, UNFINISHED_REPORTS[:2])
        for placement in Placement:
            self._placed.labels(placement.value)
        for kind in DifferenceKind:
            self._differences_found.labels(kind.value)
        for value in (self._recorded_value, self._reported_value):
            _touch(value, meters)

    def recorded(self, outcomes: Mapping[str, int], new: Sequence[Entry], now: datetime) -> None:
        """Count a committed batch.

        Args:
            outcomes: Events by one of ``OUTCOMES``.
            new: The events that were not in the ledger before.
            now: The time of the commit.
        """
        self._batch_size.observe(sum(outcomes.values()))
        for outcome, number in outcomes.items():
            self._events.labels(outcome).inc(number)
        values: dict[str, int] = {}
        for entry in new:
            if entry.state is BillingState.EXPIRED:
                continue
            self._delay.observe((now - entry.event.time).total_seconds())
            if entry.cost is not None and isinstance(entry.cost.priced, NoPrice):
                self._not_priced.labels(entry.cost.priced.reason).inc()
            for meter, value in entry.readings.items():
                values[meter] = values.get(meter, 0) + value
        for meter, value in values.items():
            self._recorded_value.labels(meter).inc(value)
        self._metadata_left_out.inc(sum(entry.metadata_left_out for entry in new))

    def refused(self, why: str) -> None:
        """Count a message that is no acceptable event, by one of ``REFUSALS``."""
        self._events.labels(why).inc()

    def claimed(self, events: int) -> None:
        """Count the events of a claim."""
        self._claimed.inc(events)

    def claimed_late(self, readings: int) -> None:
        """Count a claim of readings that came later than their runs, of runs claimed before."""
        self._late_readings.inc(readings)

    def created(self, reports: int, *, shadow: int, without_meter: int) -> None:
        """Count what a claim made: reports, those of shadow mode, and readings on no meter."""
        self._reports.labels("created").inc(reports)
        self._reports.labels("shadow").inc(shadow)
        self._without_meter.inc(without_meter)

    def priced_late(self, priced: int, given_up: int) -> None:
        """Count runs that got a price later, and those that are too old for one by now."""
        self._runs_priced_late.labels("priced").inc(priced)
        self._runs_priced_late.labels("given_up").inc(given_up)

    def unpriced_figures(self, number: int, oldest: float) -> None:
        """Show how many runs lack a price, and how old the oldest is, in seconds."""
        self._unpriced_now.set(number)
        self._oldest_unpriced.set(oldest)

    def forwarded(self, reports: int, failed: int) -> None:
        """Count reports that the broker confirmed, and those that it did not."""
        self._reports.labels("forwarded").inc(reports)
        self._reports.labels("not_forwarded").inc(failed)

    def set_aside(self, reports: int) -> None:
        """Count reports that no event can carry, at each attempt."""
        self._reports.labels("set_aside").inc(reports)

    def answered(self, states: Mapping[str, int], values: Mapping[str, int]) -> None:
        """Count reports by the state after their answer, and what Stripe counted by meter."""
        for state, number in states.items():
            self._reports.labels(state).inc(number)
        for meter, value in values.items():
            self._reported_value.labels(meter).inc(value)

    def compared(self, compared: Compared) -> None:
        """Count what a reading of Stripe's sums changed."""
        for difference in compared.opened:
            self._differences_found.labels(difference.kind.value).inc()
        self._differences_closed.inc(compared.closed)
        for seconds in compared.lags:
            self._stripe_lag.observe(seconds)

    def differences(self, open_ones: Iterable[DifferenceCount], now: datetime) -> None:
        """Show the differences that are open, and how old the oldest of each kind is."""
        found = {each.kind: each for each in open_ones}
        for kind in DifferenceKind:
            each = found.get(kind)
            age = (now - each.oldest).total_seconds() if each else 0.0
            self._differences_now.labels(kind.value).set(each.number if each else 0)
            self._oldest_difference.labels(kind.value).set(age)

    def waiting_is_allowed_for(self, seconds: int) -> None:
        """Show how long usage may wait for a customer."""
        self._waiting_allowed.set(seconds)

    def placed(self, placed: Mapping[Placement, int]) -> None:
        """Count accepted reports by where they ended up."""
        for placement, number in placed.items():
            self._placed.labels(placement.value).inc(number)

    def counted_last(self, age: float) -> None:
        """Show how many seconds ago Stripe's sums were read last; 0 if they never were."""
        self._last_reading.set(age)

    def superseded(self, reports: int) -> None:
        """Count reports that were replaced by a report to a later customer."""
        self._reports.labels("superseded").inc(reports)

    def event_figures(self, state: str, number: int, oldest: float) -> None:
        """Show how many events are in ``state`` and how old the oldest is, in seconds."""
        self._events_now.labels(state).set(number)
        self._oldest_event.labels(state).set(oldest)

    def report_figures(self, state: str, number: int, oldest: float | None) -> None:
        """Show how many reports are in ``state`` and, unless refused, the age of the oldest."""
        self._reports_now.labels(state).set(number)
        if oldest is not None:
            self._oldest_report.labels(state).set(oldest)

    def announced(self, sent: int, failed: int) -> None:
        """Count thresholds that the broker confirmed, and those that it did not."""
        self._thresholds.labels("announced").inc(sent)
        self._thresholds.labels("not_announced").inc(failed)

    def subscription_outdated(self) -> None:
        """Count a change of a subscription that was ignored for a higher revision."""
        self._outdated_subscriptions.inc()

    def totals_are_of(self, part: str, age: float) -> None:
        """Show how many seconds ago ``part`` was folded; infinite if it has yet to be rebuilt."""
        self._totals_age.labels(part).set(age)

    def reporting_is_paused(self) -> None:
        """Show that no reports are made and forwarded."""
        self._reporting_paused.set(1)

    def measured(self) -> None:
        """Note that the figures are of now."""
        self._measured.set_to_current_time()


def _touch(metric: Counter | Gauge, labels: Iterable[str]) -> None:
    for label in labels:
        metric.labels(label)
