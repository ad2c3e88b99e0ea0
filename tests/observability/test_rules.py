"""The alerts: each fires and does not fire, is described, and has its section of the runbook."""

import re
import subprocess
from datetime import timedelta
from typing import Any

import pytest
import yaml

from local_stack.monitoring import CONFIGURATION
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import RETIRED_TIERS, TIERS, WORK_QUEUES, dead_letter_queue
from support.prometheus import ROOT, promtool

MINUTE = timedelta(minutes=1)
TESTS = sorted((CONFIGURATION / "rules-tests").glob("*.yml"))


def rules(file: str) -> list[dict[str, Any]]:
    """Return the rules of one file, from all its groups."""
    groups = yaml.safe_load((CONFIGURATION / "rules" / file).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


FILES = sorted(path.name for path in (CONFIGURATION / "rules").glob("*.yml"))
ALERTS = [each for name in FILES for each in rules(name) if "alert" in each]
NAMES = {alert["alert"] for alert in ALERTS}
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))


def judge(*arguments: object) -> None:
    """Run promtool; fail with what it says."""
    command = [str(promtool()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_configuration_and_rules() -> None:
    """Syntax, templates and references, checked by promtool."""
    judge("check", "config", CONFIGURATION / "prometheus.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_only_when_they_should(file: object) -> None:
    """The cases of `promtool test rules`."""
    judge("test", "rules", file)


def test_each_alert_has_a_firing_and_a_silent_case() -> None:
    """An alert without either may never fire, or never stop."""
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for file in TESTS:
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            name = case["name"].partition(":")[0]
            for expectation in case["promql_expr_test"]:
                assert f'alertname="{name}",alertstate="firing"' in expectation["expr"]
                seen[bool(expectation["exp_samples"])].add(name)

    assert seen[True] == NAMES
    assert seen[False] == NAMES


@every_alert
def test_alert_has_summary_severity_and_runbook_section(
    alert: dict[str, Any],
) -> None:
    """Summary and description for operators, a severity, and a link to its own section."""
    assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_runbook_has_a_section_for_each_alert() -> None:
    """Each section says what the alert means, where to look, and what to do; there is no other."""
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]

    parts = re.split(r"^### (\w+)$", section, flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))

    assert sections.keys() == NAMES
    for name, words in sections.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in words, f"{name}: {part}"


def recorded(name: str, pattern: str) -> set[str]:
    """Return the queues that a recording rule selects by their names."""
    [rule] = [each for each in rules("queues.yml") if each.get("record") == name]
    found = re.search(pattern, rule["expr"])
    assert found is not None
    return {each.replace("\\\\.", ".") for each in found[1].split("|")}


def test_known_queues_are_those_of_the_topology() -> None:
    """Any other queue raises the alert UnknownQueue, unless it is a subscriber's of notices."""
    retired = [tier.name for tier in RETIRED_TIERS]
    described = {queue.name for queue in metering_topology(present=retired).queues}

    assert recorded("queue:unknown_messages:sum", r'queue!~"([^"]+)"') == described | {"notices..+"}


def test_work_and_dead_letter_queues_are_selected_by_name() -> None:
    """A queue made by a mistyped move is not counted, although its name is similar."""
    dead = {dead_letter_queue(queue) for queue in WORK_QUEUES}

    assert recorded("queue:work_messages:sum", r'queue=~"([^"]+)"') == set(WORK_QUEUES)
    assert recorded("queue:dead_letters:sum", r'queue=~"([^"]+)"') == dead


def test_each_queue_of_the_topology_is_missed() -> None:
    """The alert names each, since a queue that is missing has no series."""
    [alert] = [each for each in ALERTS if each["alert"] == "QueueMissing"]

    missed = re.findall(
        r'absent\(rabbitmq_detailed_queue_messages{queue="([^"]+)"}\)', alert["expr"]
    )

    assert sorted(missed) == sorted(queue.name for queue in metering_topology().queues)


def test_each_work_queue_is_checked_for_consumers() -> None:
    """A queue made by a mistyped move raises no alert for consumers."""
    [alert] = [each for each in ALERTS if each["alert"] == "QueueWithoutConsumer"]

    patterns = re.findall(r'work_consumers:sum{queue=~"([^"]+)"}', alert["expr"])

    watched = "|".join(patterns).replace("\\\\", "\\")
    assert recorded("queue:work_consumers:sum", r'queue=~"([^"]+)"') == set(WORK_QUEUES)
    assert all(re.fullmatch(watched, queue) for queue in WORK_QUEUES)


def test_window_of_each_tier_is_longer_than_its_wait() -> None:
    """The window is the wait and five minutes."""
    found = {
        rule["labels"]["queue"]: re.search(r"\[(\d+)m\]", rule["expr"])
        for rule in rules("queues.yml")
        if rule.get("record") == "queue:retried_within_wait:increase"
    }
    minutes = {name: int(window[1]) for name, window in found.items() if window}

    assert minutes == {tier.name: tier.wait // MINUTE + 5 for tier in (*TIERS, *RETIRED_TIERS)}
