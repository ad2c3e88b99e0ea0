"""A publisher's figures for Prometheus, if the host uses its client."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from nexus_publisher.publisher import Publisher

PREFIX = "nexus_publisher"


class PublisherCollector(Collector):
    """Collects a publisher's figures: ``REGISTRY.register(PublisherCollector(publisher))``."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield each figure of ``Publisher.stats``."""
        stats = self._publisher.stats()
        counters = {
            "recorded": ("Events stored on disk or in memory.", stats.recorded),
            "confirmed": ("Events confirmed by the events API or the broker.", stats.confirmed),
            "metadata_left_out": (
                "Events without their invalid metadata.",
                stats.metadata_left_out,
            ),
            "spools_set_aside": ("Damaged spool files.", stats.spools_set_aside),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value)
        dropped = CounterMetricFamily(f"{PREFIX}_dropped", "Events dropped.", labels=["reason"])
        for reason, count in stats.dropped.items():
            dropped.add_metric([reason], count)
        yield dropped
        waiting = GaugeMetricFamily(
            f"{PREFIX}_waiting_events", "Events not confirmed yet.", labels=["place"]
        )
        waiting.add_metric(["memory"], stats.in_memory)
        if stats.spooled is not None:
            waiting.add_metric(["spool"], stats.spooled)
        yield waiting
        yield GaugeMetricFamily(f"{PREFIX}_spool_bytes", "The spool's files.", stats.spool_bytes)
        yield GaugeMetricFamily(
            f"{PREFIX}_oldest_wait_seconds",
            "Age of the oldest event that is not confirmed; 0 if none waits.",
            stats.oldest_seconds or 0.0,
        )
