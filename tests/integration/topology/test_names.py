"""Names of queues outside the topology: each file that repeats one agrees with the topology."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_messaging.topology import RETIRED_TIERS, TIERS, WORK_QUEUES, dead_letter_queue

ROOT = Path(__file__).parents[3]
HISTORY = ("CHANGELOG.md", "docs/decisions/")
MAY_NAME_RETIRED_TIERS = (
    "docs/queue_rules.py",
    "docs/runbook.md",
    "deploy/prometheus/rules/queues.yml",
    "deploy/prometheus/rules-tests/retry-tiers.yml",
    "libs/messaging/src/nexus_messaging/topology.py",
)
"""They must still serve retired tiers: alerts, the operator's instructions, the topology."""

SERVICES = {queue.partition(".")[0] for queue in WORK_QUEUES}
QUEUE = re.compile(rf"(?<![\w./-])({'|'.join(SERVICES)})\\*\.([a-z]+-[a-z]+)(?![\w-])")
TIER = re.compile(r"(?<![\w.-])(?:nexus\.)?(retry\\*\.\d\w*)")


def texts() -> Iterator[tuple[str, str]]:
    """Yield the path and text of each tracked file that is neither generated data nor history."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607 - of the machine
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not name.startswith(HISTORY) and path.is_file() and path != Path(__file__):
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def plain(name: str) -> str:
    """Return a name without the backslashes of a regular expression."""
    return name.replace("\\", "")


def test_each_queue_that_a_file_names_exists() -> None:
    """After a queue was renamed or removed this names every file that must follow."""
    mistyped = {"usage-ingest.tool-executd", "stripe-reporter.usage-recordet"}
    tutorial = {"usage-ingest.tool-rated"}
    allowed = {*WORK_QUEUES, *mistyped, *tutorial, "usage-ingest.tool-exectued"}

    wrong = [
        f"{name}: {queue}"
        for name, text in texts()
        for queue in {".".join(found) for found in QUEUE.findall(text)}
        if queue not in allowed
    ]

    assert wrong == []


def test_each_tier_that_a_file_names_exists() -> None:
    """Only what must serve retired tiers names them; a wait is in no name."""
    tiers, retired = {tier.name for tier in TIERS}, {tier.name for tier in RETIRED_TIERS}
    example = "retry.30s"  # a queue of an earlier description, in tests of its policy

    wrong = [
        f"{name}: {tier}"
        for name, text in texts()
        for tier in {plain(found) for found in TIER.findall(text)}
        if tier not in tiers
        and not (tier in retired and name in MAY_NAME_RETIRED_TIERS)
        and tier != example
    ]

    assert wrong == []


@pytest.mark.parametrize("package", ["deploy/chaos", "deploy/demo", "deploy/local"])
def test_package_that_may_not_import_the_topology_keeps_no_list_of_queues(package: str) -> None:
    """It reads the queues from the broker, and names only those that it treats differently."""
    named: set[str] = set()
    for name, text in texts():
        if name.startswith(f"{package}/src/"):
            named |= {".".join(found) for found in QUEUE.findall(text)}
            named |= {plain(tier) for tier in TIER.findall(text)}

    assert len(named & set(WORK_QUEUES)) < len(WORK_QUEUES) / 2
    assert len(named & {tier.name for tier in TIERS}) < len(TIERS) / 2


def test_no_dead_letter_queue_has_another_suffix() -> None:
    """Files outside Python build the name of a dead-letter queue by its suffix."""
    assert {dead_letter_queue(queue) for queue in WORK_QUEUES} == {f"{q}.dlq" for q in WORK_QUEUES}
