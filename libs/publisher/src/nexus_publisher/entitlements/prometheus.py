"""The figures of entitlements for Prometheus, if the host uses its client."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from nexus_publisher.entitlements.client import Entitlements
from nexus_publisher.entitlements.counters import Source
from nexus_publisher.entitlements.decision import Why

PREFIX: Final = "nexus_entitlements"


class EntitlementsCollector(Collector):
    """Collects figures: ``REGISTRY.register(EntitlementsCollector(entitlements))``."""

    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield each figure of ``Entitlements.stats``."""
        stats = self._entitlements.stats()
        yield _counter("calls", "Calls by where the answer came from.", "source", stats.sources)
        yield _counter("decisions", "Calls by the reason of the decision.", "why", stats.decisions)
        text = "Users whose answer is in the cache."
        yield GaugeMetricFamily(f"{PREFIX}_cached_users", text, stats.cached_users)


def _counter(
    name: str, text: str, label: str, counts: Mapping[Source, int] | Mapping[Why, int]
) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
