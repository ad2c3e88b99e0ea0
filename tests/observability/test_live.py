"""Dashboards and alerts on a live Prometheus, after a scenario in which all counters increase."""

import asyncio
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.catalogue import EVENTS_API, SERVICES, USAGE_API, StackOptions
from local_stack.monitoring import CONFIGURATION
from local_stack.stack import Stack
from nexus_messaging.topology import RETIRED_TIERS
from observability.scene import Scene, wait_for
from support.leak_check import admin_url, leaks, logs_of, metrics_of, secrets_of, tap, tapped
from support.prometheus import ROOT, PrometheusClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
JOBS = (
    *(plan.name for plan in SERVICES),
    EVENTS_API,
    USAGE_API,
    "rabbitmq",
    "rabbitmq-queues",
    "postgres",
)

NEVER_HERE = {
    # No report is 23 hours old here, and no customer has more than 25 waiting.
    ("stripe_reporter_reports_total", "fenced"),
    ("stripe_reporter_reports_total", "customer_busy"),
    # Both need another copy of a report while its call is under way.
    ("stripe_reporter_reports_total", "deferred"),
    # The broker confirms everything here.
    ("usage_ingest_reports_total", "not_forwarded"),
    # No row was changed by hand here, and no later release has written any.
    ("usage_ingest_reports_total", "set_aside"),
    ("usage_ingest_events_total", "held_by_newer"),
    # No run comes in two versions here.
    ("usage_ingest_events_total", "details_added"),
    # Of no rejected report another attempt was accepted here, and no person has settled one.
    ("stripe_reporter_late_rejections_total", "other_attempt"),
    ("stripe_reporter_late_rejections_total", "by_hand"),
    # PostgreSQL refuses no row here.
    ("usage_ingest_events_total", "unstorable"),
}
"""Label values that the scenario does not bring about, and why."""

BUILT_BY = re.compile(r"(?<=user=)\S+@tracker\.debian\.org")
"""The packagers' address in the first lines of the log of Debian's Prometheus."""

BROUGHT_ABOUT = {
    "usage_ingest_events_total": "outcome",
    "usage_ingest_reports_total": "step",
    "stripe_reporter_reports_total": "outcome",
    "usage_ingest_differences_found_total": "kind",
    "stripe_reporter_meter_error_samples_total": "sample",
    "stripe_reporter_late_rejections_total": "verdict",
}
"""Counters of which the scenario must increase every label value."""


@dataclass(frozen=True)
class Live:
    """The running stack, and the Prometheus that watches it with the committed configuration."""

    stack: Stack
    prometheus: PrometheusClient
    latencies: dict[str, float]

    def asked(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of a panel's or a rule's query that are numbers."""
        series = self.prometheus.query(expr.replace("$__rate_interval", "5m"))
        return [each for each in series if not math.isnan(float(each["value"][1]))]


@pytest.fixture(scope="module")
def live(server_directory: Path) -> Iterator[Live]:
    """Start everything, play the scenario, and wait until Prometheus has seen it."""
    said: list[str] = []
    quick = {"REPORT_WINDOW_SECONDS": "1"}
    options = StackOptions(
        tier_scale=0.01,
        monitored=True,
        max_calls_per_second=100,
        durable=False,
        grace_seconds=5,
        service_environment={plan.name: quick for plan in SERVICES},
        events_api=True,
        usage_api=True,
    )
    with Stack.start(server_directory / "stack", options, said.append) as stack:
        assert stack.monitoring.url is not None, said[-1]
        prometheus = PrometheusClient(stack.monitoring.url)
        yield Live(stack, prometheus, asyncio.run(played(stack, prometheus)))


async def played(stack: Stack, prometheus: PrometheusClient) -> dict[str, float]:
    """Play the scenario and wait for three alerts; return the seconds until each fired."""
    await asyncio.to_thread(until_scraped, prometheus)
    await tap(admin_url(stack))
    async with AsyncExitStack() as until:
        scene = await Scene.open(stack, until)
        await scene.play()
        await scene.revoke_key()
        firing = prometheus.firing
        when = await asyncio.to_thread(wait_for, scene.faults, firing, within=150)
        await scene.restore_key()
        return {name: moment - scene.faults[name] for name, moment in when.items()}


def until_scraped(prometheus: PrometheusClient) -> None:
    """Wait until every job was scraped twice: an increase needs a value before it."""
    wait_for(
        JOBS,
        lambda: {
            each["metric"]["job"]
            for each in prometheus.query("count_over_time(up[5m]) > 1 and up == 1")
        },
        within=90,
    )


def panels() -> Iterator[Any]:
    """Yield every query of every panel."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                name = f"{path.stem}: {panel['title']} {target['refId']}"
                yield pytest.param(target["expr"], id=name)


def rules() -> Iterator[Any]:
    """Yield every alert and recording rule."""
    for path in sorted((CONFIGURATION / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                yield pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])


def selectors(expr: str) -> set[str]:
    """Return the series selectors of an expression, without their windows."""
    found = re.findall(r"([a-zA-Z_:][\w:]*)?(\{[^}]*\})?(?!\w)(?!\s*\()", expr)
    metric = re.compile(r".*[_:].*|up|ALERTS")
    words = {"group_left", "group_right", "label_replace"}
    return {
        name + braces
        for name, braces in found
        if braces or (metric.fullmatch(name) and name not in words)
    }


@pytest.mark.parametrize("expr", list(panels()))
def test_each_panel_shows_data(live: Live, expr: str) -> None:
    """After the scenario no query of any panel is empty or not a number."""
    assert live.asked(expr)


@pytest.mark.parametrize("expr", list(rules()))
def test_each_rule_uses_series_that_exist(live: Live, expr: str) -> None:
    """Each series that a rule selects exists, whether an alert fires or not."""
    assert selectors(expr)
    for selector in selectors(expr):
        # Only processes of the previous release count what goes to retired tiers.
        if not any(f'tier="{tier.name}"' in selector for tier in RETIRED_TIERS):
            assert live.asked(selector), selector


def test_each_label_value_can_occur(live: Live) -> None:
    """Each label value of the main counters increased, except a few with a reason."""
    still = {
        (counter, each["metric"][label])
        for counter, label in BROUGHT_ABOUT.items()
        for each in live.asked(f"sum by ({label}) ({counter}) == 0")
    }

    assert still == NEVER_HERE


def test_recorded_quantity_is_reported_or_waits(live: Live) -> None:
    """The two quantities of the overview agree with the ledger."""
    [recorded] = live.asked("sum(usage_ingest_recorded_value_total)")
    [reported] = live.asked("sum(usage_ingest_reported_value_total)")

    # One run waits for a user who never comes; the last one was held back by the key and may have
    # been counted meanwhile.
    held_back = float(recorded["value"][1]) - float(reported["value"][1])
    assert held_back in {1, 2}


def test_alerts_fire_within_two_minutes_of_the_fault(live: Live) -> None:
    """With the committed intervals, from the fault to the firing alert."""
    latencies = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in live.latencies.items())
    sys.stderr.write(f"alerts fired after: {latencies}\n")

    assert max(live.latencies.values()) < 120


def test_metrics_do_not_grow_with_users_or_messages(live: Live) -> None:
    """The scenario's many ids, reasons and customers made no more series than the lists have."""
    for plan in SERVICES:
        [series] = live.asked(f'count({{job="{plan.name}"}})')
        assert float(series["value"][1]) < 1_000


def test_no_log_metric_or_header_holds_a_secret_or_an_address(live: Live) -> None:
    """All output of the run is searched for all secrets and addresses that it used."""
    services = live.stack.services.values()
    output = {**logs_of(services), **metrics_of(services)}
    output |= {
        name: BUILT_BY.sub("", server.log.read_text())
        for name, server in live.stack.monitoring.servers.items()
    }
    output["headers of copies"] = asyncio.run(tapped(admin_url(live.stack)))

    assert "nexus-reason" in output["headers of copies"]
    assert len(output) == 2 * len(SERVICES) + len(live.stack.monitoring.servers) + 1
    assert leaks(output, secrets_of(live.stack)) == []
