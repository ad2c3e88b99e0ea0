"""Counters are born at zero, or their first increase would not show."""

from prometheus_client import CollectorRegistry, generate_latest

from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.flood import Flood
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS, TOOL_EXECUTED_QUEUE


def test_every_label_value_starts_at_zero() -> None:
    """Each queue with each tier and each reason, all zero."""
    registry = CollectorRegistry()
    MessagingMetrics(registry, service="usage-ingest", queues=[TOOL_EXECUTED_QUEUE])

    lines = [
        line
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("usage_ingest_messages") and "_total" in line
    ]

    assert len(lines) == 2 + len(TIERS) + len(Reason)  # done and held back have the queue alone
    assert all(line.endswith(" 0.0") for line in lines)


def test_a_flood_shows_as_a_stopped_queue_until_it_is_resumed() -> None:
    """0 from the start, 1 while it is stopped."""
    registry = CollectorRegistry()
    metrics = MessagingMetrics(registry, service="s", queues=["q"])

    shown = []
    for flood in (None, Flood(6, 10, Reason.INVALID), None):
        shown.append(registry.get_sample_value("s_consumption_stopped", {"queue": "q"}))
        metrics.show_flood("q", flood)
    shown.append(registry.get_sample_value("s_consumption_stopped", {"queue": "q"}))

    assert shown == [0, 0, 1, 0]


def test_sources_held_back_show_until_they_are_resumed() -> None:
    """The gauge starts at 0; a message counts each time it is held back."""
    registry = CollectorRegistry()
    metrics = MessagingMetrics(registry, service="s", queues=["q"])

    shown = []
    for sources in (1, 2, 0):
        shown.append(registry.get_sample_value("s_sources_held_back", {"queue": "q"}))
        metrics.show_held_sources("q", sources)
        metrics.count_held_back("q")
    shown.append(registry.get_sample_value("s_sources_held_back", {"queue": "q"}))

    assert shown == [0, 1, 2, 0]
    assert registry.get_sample_value("s_messages_held_back_total", {"queue": "q"}) == 3


def test_each_outcome_counts_once_for_its_queue() -> None:
    """Done, retried by tier, dead-lettered by reason."""
    registry = CollectorRegistry()
    metrics = MessagingMetrics(registry, service="s", queues=["q"])

    metrics.count_processed("q")
    metrics.count_retry("q", TIERS[0].name)
    metrics.count_dead_letter("q", Reason.INVALID)

    for name, labels in (
        ("done", {}),
        ("retried", {"tier": TIERS[0].name}),
        ("dead_lettered", {"reason": "invalid"}),
    ):
        assert registry.get_sample_value(f"s_messages_{name}_total", {"queue": "q", **labels}) == 1


def test_a_failed_publish_counts_once_under_its_cause() -> None:
    """Causes: unroutable, a broker in alarm, or no connection."""
    registry = CollectorRegistry()
    metrics = MessagingMetrics(registry, service="s", queues=["q"])

    for error in (UnroutableError("x"), PublishTimeoutError("x"), PublishError("x")):
        metrics.count_publish_failure(error)

    for cause in ("unroutable", "timeout", "other"):
        assert registry.get_sample_value("s_publishes_failed_total", {"cause": cause}) == 1
