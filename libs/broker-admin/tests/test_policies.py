"""The settings in force for a queue when others have policies, too: as the broker decides them."""

from datetime import timedelta
from typing import Any

import pytest

from nexus_broker_admin.definitions import IN_FORCE, POLICIES, definitions
from nexus_broker_admin.drift import Standing, compare
from nexus_broker_admin.policies import blocked_tiers, in_force, returns_messages
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import TIERS, TOOL_EXECUTED_QUEUE, UNROUTABLE, dead_letter_queue

TOPOLOGY = metering_topology(broker_version="3.10.8")
DEAD_LETTERS = dead_letter_queue(TOOL_EXECUTED_QUEUE)
TIER = TIERS[0].name
WAIT = TIERS[0].wait // timedelta(milliseconds=1)
ONLY_TIER = f"^{TIER.replace('.', '[.]')}$"


def policy(name: str, priority: int, pattern: str = ".*", **settings: object) -> dict[str, Any]:
    """Write a policy as the broker exports it."""
    return {
        "vhost": TOPOLOGY.vhost,
        "name": name,
        "pattern": pattern,
        "apply-to": "queues",
        "definition": {key.replace("_", "-"): value for key, value in settings.items()},
        "priority": priority,
    }


def operator_policy(name: str, pattern: str = ".*", **settings: object) -> dict[str, Any]:
    """Write an operator policy as the broker exports it."""
    value = policy(name, 0, pattern, **settings)
    return {
        "component": "operator_policy",
        "vhost": value.pop("vhost"),
        "name": value.pop("name"),
        "value": value,
    }


def broker(*others: dict[str, Any], parameters: list[dict[str, Any]] | None = None) -> Any:
    """Return what a broker as described holds, with policies of others beside ours."""
    found = definitions(TOPOLOGY)
    found["policies"] += others
    return {**found, "parameters": parameters or []}


def without_arguments(found: Any) -> Any:
    """Return a broker whose tiers have their settings by policy alone, as in release 0.1.0."""
    for queue in found["queues"]:
        if queue["name"] in {tier.name for tier in TIERS}:
            queue["arguments"] = {"x-queue-type": "quorum"}
    return found


def displaced(found: Any) -> dict[str, str]:
    """Return the text about each queue whose settings in force are not as described."""
    return {
        difference.kind.name(difference.wanted or {}): str(difference)
        for difference in compare(TOPOLOGY, found, {})
        if difference.kind is IN_FORCE
    }


@pytest.mark.parametrize(
    ("priority", "pattern", "apply_to", "displaces"),
    [
        (9, ".*", "queues", False),
        (10, ".*", "queues", True),
        (11, ".*", "all", True),
        (11, ".*", "quorum_queues", True),
        (11, ".*", "classic_queues", False),
        (11, ".*", "exchanges", False),
        (11, "^retry.1$", "queues", True),
        (11, "1", "queues", True),
        (11, "^1", "queues", False),
        (11, "(?<one>1)", "queues", True),
    ],
)
def test_a_policy_displaces_ours_by_priority_pattern_and_kind(
    priority: int, pattern: str, apply_to: str, *, displaces: bool
) -> None:
    """As the broker chooses; where it may choose any, or the pattern is Perl's, the worse."""
    theirs = policy("theirs", priority, pattern, max_length=10) | {"apply-to": apply_to}

    found = displaced(broker(theirs)).get(TIER, "")

    assert (f"in force: policy theirs (priority {priority})" in found) is displaces


def test_displaced_policy_is_reported_and_not_repaired() -> None:
    """Others set that policy on purpose: the text says what to do, and nothing is changed."""
    found = compare(TOPOLOGY, broker(policy("theirs", 50, max_length=10)), {})

    ours = [each for each in found if each.kind is IN_FORCE]
    assert {each.standing for each in ours} == {Standing.DIFFERENT}
    assert not any(each.repairable for each in ours)
    assert len(ours) == len(TOPOLOGY.queues)


@pytest.mark.parametrize("queue", [DEAD_LETTERS, UNROUTABLE])
def test_dead_letter_queue_may_have_no_settings_of_others(queue: str) -> None:
    """A time to live or a limit would drop dead letters, whatever the priority of the policy."""
    found = displaced(broker(policy("theirs", 0, message_ttl=1000)))

    assert f"queue {queue}: message-ttl is 1000, should be absent; in force: policy" in found[queue]
    assert TIER not in found


def test_settings_that_move_no_message_are_ignored() -> None:
    """A managed broker may place its queues by policies that operators cannot remove."""
    managed = operator_policy("managed", queue_leader_locator="balanced")

    assert displaced(broker(policy("theirs", 0, ha_mode="all"), parameters=[managed])) == {}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"message_ttl": 10}, f"message-ttl is 10, should be {WAIT}"),
        ({"max_length": 10}, "max-length is 10, should be absent"),
        ({"dead_letter_exchange": "x"}, "dead-letter-exchange is x, should be retry.return"),
        ({"message_ttl": WAIT + 1}, ""),
    ],
)
def test_operator_policy_is_merged_over_ours(settings: dict[str, object], text: str) -> None:
    """Of two numbers the smaller is in force; otherwise the operator policy's value is."""
    managed = operator_policy("managed", ONLY_TIER, **settings)

    found = displaced(without_arguments(broker(parameters=[managed])))

    assert list(found) == ([TIER] if text else [])
    assert text in found.get(TIER, "")
    if text:
        assert "operator policy managed (priority 0)" in found[TIER]


def test_missing_policy_of_ours_is_reported_once() -> None:
    """A difference that apply repairs needs no second line about the queue."""
    found = broker()
    found["policies"] = [each for each in found["policies"] if TIER not in each["name"]]

    assert displaced(found) == {}
    assert [str(each) for each in compare(TOPOLOGY, found, {})][:1] == [
        f"missing policy nexus.{TIER}"
    ]


def test_policy_is_kept_while_a_queue_needs_it() -> None:
    """Without it the queue would drop what waits there; it is removed once the queue is gone."""
    former = policy("nexus.retry.30s", 10, "^retry[.]30s$", message_ttl=30_000)
    found = broker(former)
    found["queues"].append({**found["queues"][0], "name": "retry.30s"})

    (kept,) = [each for each in compare(TOPOLOGY, found, {}) if each.standing is Standing.STALE]
    found["queues"].pop()
    (gone,) = [each for each in compare(TOPOLOGY, found, {}) if each.standing is Standing.STALE]

    assert not kept.repairable
    assert str(kept) == (
        "extra policy nexus.retry.30s: still in force for retry.30s:"
        " empty it, delete it, apply again"
    )
    assert gone.repairable


@pytest.mark.parametrize(
    ("wait", "blocked"), [(None, True), (WAIT + 1, True), (WAIT, False), (WAIT - 1, False)]
)
def test_tier_is_blocked_by_messages_with_a_longer_wait(wait: int | None, *, blocked: bool) -> None:
    """Or with none; those with a shorter wait leave by themselves."""
    settings = {} if wait is None else {"message_ttl": wait}
    found = broker(policy("theirs", 50, ONLY_TIER, **settings))

    assert blocked_tiers(TOPOLOGY, without_arguments(found)) == ((TIER,) if blocked else ())


def test_policy_of_others_removes_nothing_from_a_tier() -> None:
    """A tier has its wait and its return as arguments; of two waits the shorter is in force."""
    settings = {"message_ttl": WAIT + 1, "dead_letter_exchange": "x", "overflow": "drop-head"}
    found = broker(policy("theirs", 50, ONLY_TIER, **settings))

    assert blocked_tiers(TOPOLOGY, found) == ()
    assert returns_messages(TIER, TOPOLOGY.vhost, found)
    assert displaced(found) == {}


def test_tier_returns_messages_only_with_all_its_settings() -> None:
    """A message rejected from a tier that lacks one of them would be dropped."""
    theirs = policy("theirs", 50, "^retry", message_ttl=1, dead_letter_exchange="retry.return")

    assert returns_messages(TIER, TOPOLOGY.vhost, without_arguments(broker()))
    assert not returns_messages(TIER, TOPOLOGY.vhost, without_arguments(broker(theirs)))


def test_longer_wait_does_not_hold_beside_the_old_argument() -> None:
    """Of argument and policy the smaller number is in force: the queue must be replaced."""
    longer = metering_topology(tier_scale=2, broker_version="3.10.8")

    differences = [each for each in compare(longer, broker(), {}) if each.kind is not POLICIES]

    assert [each.subject for each in differences] == [f"queue {tier.name}" for tier in TIERS]
    assert not any(each.acceptable or each.repairable for each in differences)
    assert "empty it, delete it, apply again" in str(differences[0])


def test_shorter_wait_holds_by_policy_beside_the_old_argument() -> None:
    """The queue works as described, and what came in under the longer wait is to be drained."""
    shorter = metering_topology(tier_scale=0.5, broker_version="3.10.8")

    differences = [each for each in compare(shorter, broker(), {}) if each.kind is not POLICIES]

    assert [each.subject for each in differences] == [f"queue {tier.name}" for tier in TIERS]
    assert all(each.acceptable for each in differences)
    assert "as described while its policy is in force" in str(differences[0])
    assert blocked_tiers(shorter, broker()) == tuple(tier.name for tier in TIERS)


def test_queue_without_policies_has_no_settings() -> None:
    """The source says that there is no policy."""
    there = in_force("theirs", [], [])

    assert (there.definition, there.source) == ({}, "no policy")
