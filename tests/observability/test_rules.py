"""The alerts and what they need: tested both ways, described, and led into the runbook."""

import re
import subprocess
from datetime import timedelta
from typing import Any

import pytest
import yaml

from local_stack.monitoring import CONFIGURATION
from nexus_messaging.topology import (
    RETIRED_TIERS,
    TIERS,
    WORK_QUEUES,
    dead_letter_queue,
    metering_topology,
)
from support.prometheus import ROOT, promtool

MINUTE = timedelta(minutes=1)
TESTS = sorted((CONFIGURATION / "rules-tests").glob("*.yml"))


def rules(file: str) -> list[dict[str, Any]]:
    """Return the rules of one file, from all its groups."""
    groups = yaml.safe_load((CONFIGURATION / "rules" / file).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [each for name in ("alerts.yml", "queues.yml") for each in rules(name) if "alert" in each]
NAMES = {alert["alert"] for alert in ALERTS}
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))


def judge(*arguments: object) -> None:
    """Run promtool; fail with what it says."""
    command = [str(promtool()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_configuration_and_rules() -> None:
    """Syntax, templates and references, judged by Prometheus' own tool."""
    judge("check", "config", CONFIGURATION / "prometheus.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_otherwise(file: object) -> None:
    """The cases of `promtool test rules`, on invented series."""
    judge("test", "rules", file)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """An alert that can't be made to fire, or can't be made to stop, is no alert."""
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
def test_an_alert_says_what_is_wrong_how_urgent_it_is_and_where_to_read_on(
    alert: dict[str, Any],
) -> None:
    """Summary and description for a person, a severity, and its own section of the runbook."""
    assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_every_alert_and_for_no_other() -> None:
    """Each says what it means, where to look by UI, query and SQL, and what to do."""
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]

    parts = re.split(r"^### (\w+)$", section, flags=re.MULTILINE)[1:]
    told = dict(zip(parts[::2], parts[1::2], strict=True))

    assert told.keys() == NAMES
    for name, words in told.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in words, f"{name}: {part}"


def recorded(name: str, pattern: str) -> set[str]:
    """Return the queues that a recording rule selects by their names."""
    [rule] = [each for each in rules("queues.yml") if each.get("record") == name]
    found = re.search(pattern, rule["expr"])
    assert found is not None
    return {each.replace("\\\\.", ".") for each in found[1].split("|")}


def test_the_queues_that_are_ours_are_those_of_the_topology() -> None:
    """A queue added to the topology raises no alert, and any other does."""
    retired = [tier.name for tier in RETIRED_TIERS]
    described = {queue.name for queue in metering_topology(present=retired).queues}

    assert recorded("queue:unknown_messages:sum", r'queue!~"([^"]+)"') == described


def test_work_and_dead_letters_are_told_from_all_others_by_their_names() -> None:
    """What a mistyped move made looks like a queue of ours, and is counted as none."""
    dead = {dead_letter_queue(queue) for queue in WORK_QUEUES}

    assert recorded("queue:work_messages:sum", r'queue=~"([^"]+)"') == set(WORK_QUEUES)
    assert recorded("queue:dead_letters:sum", r'queue=~"([^"]+)"') == dead


def test_every_queue_of_the_topology_is_missed() -> None:
    """The alert names each, since a queue that is missing has no series."""
    [alert] = [each for each in ALERTS if each["alert"] == "QueueMissing"]

    missed = re.findall(
        r'absent\(rabbitmq_detailed_queue_messages{queue="([^"]+)"}\)', alert["expr"]
    )

    assert sorted(missed) == sorted(queue.name for queue in metering_topology().queues)


def test_every_work_queue_is_watched_for_its_consumer() -> None:
    """And no other: a queue that a mistyped move made pages nobody."""
    [alert] = [each for each in ALERTS if each["alert"] == "QueueWithoutConsumer"]

    patterns = re.findall(r'work_consumers:sum{queue=~"([^"]+)"}', alert["expr"])

    watched = "|".join(patterns).replace("\\\\", "\\")
    assert recorded("queue:work_consumers:sum", r'queue=~"([^"]+)"') == set(WORK_QUEUES)
    assert all(re.fullmatch(watched, queue) for queue in WORK_QUEUES)


def test_every_retry_tier_is_watched_for_longer_than_it_waits() -> None:
    """Each has its own window: its wait and five minutes."""
    found = {
        rule["labels"]["queue"]: re.search(r"\[(\d+)m\]", rule["expr"])
        for rule in rules("queues.yml")
        if rule.get("record") == "queue:retried_within_wait:increase"
    }
    minutes = {name: int(window[1]) for name, window in found.items() if window}

    assert minutes == {tier.name: tier.wait // MINUTE + 5 for tier in (*TIERS, *RETIRED_TIERS)}
