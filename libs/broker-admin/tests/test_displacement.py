"""Which policy governs a queue when others have policies, too: as the broker decides it."""

from typing import Any

import pytest

from nexus_broker_admin.definitions import IN_FORCE, definitions
from nexus_broker_admin.displacement import in_force, returns_home, tiers_held
from nexus_broker_admin.drift import Standing, compare
from nexus_messaging.topology import (
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    dead_letter_queue,
    metering_topology,
)

TOPOLOGY = metering_topology(broker_version="3.10.8")
DEAD_LETTERS = dead_letter_queue(TOOL_EXECUTED_QUEUE)
TIER = TIERS[0].name


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


def with_former_tiers(found: Any) -> Any:
    """Return a broker whose tiers have only from their policies what new ones have themselves."""
    for queue in found["queues"]:
        if queue["name"] in {tier.name for tier in TIERS}:
            queue["arguments"] = {"x-queue-type": "quorum"}
    return found


def displaced(found: Any) -> dict[str, str]:
    """Return what is said about each queue whose settings are not as described."""
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
        (11, "^retry.5s$", "queues", True),
        (11, "5", "queues", True),
        (11, "^5", "queues", False),
        (11, "(?<five>5)", "queues", True),
    ],
)
def test_a_policy_displaces_ours_by_priority_pattern_and_kind(
    priority: int, pattern: str, apply_to: str, *, displaces: bool
) -> None:
    """As the broker chooses; where it may choose either, or the pattern is Perl's, the worse."""
    theirs = policy("theirs", priority, pattern, max_length=10) | {"apply-to": apply_to}

    said = displaced(broker(theirs)).get(TIER, "")

    assert (f"in force: policy theirs (priority {priority})" in said) is displaces


def test_a_displaced_queue_is_left_to_a_person() -> None:
    """Somebody meant that policy: what to do about it is said, and nothing is changed."""
    found = compare(TOPOLOGY, broker(policy("theirs", 50, max_length=10)), {})

    ours = [each for each in found if each.kind is IN_FORCE]
    assert {each.standing for each in ours} == {Standing.DIFFERENT}
    assert not any(each.repairable for each in ours)
    assert len(ours) == len(TOPOLOGY.queues)


@pytest.mark.parametrize("queue", [DEAD_LETTERS, UNROUTABLE])
def test_a_queue_without_settings_of_ours_may_have_none_of_others(queue: str) -> None:
    """A time to live or a limit of anybody's would drop dead letters, whatever its priority."""
    said = displaced(broker(policy("theirs", 0, message_ttl=1000)))

    assert f"queue {queue}: message-ttl is 1000, should be absent; in force: policy" in said[queue]
    assert TIER not in said


def test_settings_that_move_no_message_are_passed_over() -> None:
    """A managed broker may place its queues by policies that nobody can remove."""
    managed = operator_policy("managed", queue_leader_locator="balanced")

    assert displaced(broker(policy("theirs", 0, ha_mode="all"), parameters=[managed])) == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"message_ttl": 10}, "message-ttl is 10, should be 5000"),
        ({"max_length": 10}, "max-length is 10, should be absent"),
        ({"dead_letter_exchange": "x"}, "dead-letter-exchange is x, should be retry.return"),
        ({"message_ttl": 90_000_000}, ""),
    ],
)
def test_an_operator_policy_is_laid_over_ours(settings: dict[str, object], said: str) -> None:
    """Of numbers the smaller holds, of all else the operator policy's."""
    laid_over = operator_policy("managed", "^retry[.]5s$", **settings)

    found = displaced(with_former_tiers(broker(parameters=[laid_over])))

    assert list(found) == ([TIER] if said else [])
    assert said in found.get(TIER, "")
    if said:
        assert "operator policy managed (priority 0)" in found[TIER]


def test_a_policy_of_ours_that_is_wrong_is_said_once() -> None:
    """What apply mends needs no second line about the queue that it governs."""
    found = broker()
    found["policies"] = [each for each in found["policies"] if TIER not in each["name"]]

    assert displaced(found) == {}
    assert [str(each) for each in compare(TOPOLOGY, found, {})][:1] == [
        f"missing policy nexus.{TIER}"
    ]


def test_a_policy_of_ours_is_kept_while_a_former_queue_needs_it() -> None:
    """Without it the former tier would drop what waits there; it goes once the queue has gone."""
    former = policy("nexus.retry.30s", 10, "^retry[.]30s$", message_ttl=30_000)
    found = broker(former)
    found["queues"].append({**found["queues"][0], "name": "retry.30s"})

    (kept,) = [each for each in compare(TOPOLOGY, found, {}) if each.standing is Standing.STALE]
    found["queues"].pop()
    (gone,) = [each for each in compare(TOPOLOGY, found, {}) if each.standing is Standing.STALE]

    assert not kept.repairable
    assert str(kept) == (
        "extra policy nexus.retry.30s: still obeyed by retry.30s: empty it, delete it, apply again"
    )
    assert gone.repairable


@pytest.mark.parametrize(
    ("wait", "held"), [(None, True), (5_001, True), (5_000, False), (50, False)]
)
def test_a_tier_is_held_by_what_came_in_under_a_longer_wait(
    wait: int | None, *, held: bool
) -> None:
    """Or under none at all; what came in under a shorter one leaves by itself."""
    settings = {} if wait is None else {"message_ttl": wait}
    found = broker(policy("theirs", 50, "^retry[.]5s$", **settings))

    assert tiers_held(TOPOLOGY, with_former_tiers(found)) == ((TIER,) if held else ())


def test_a_policy_of_others_takes_nothing_away_from_a_tier() -> None:
    """It has its wait and its way home by itself; of waits the shorter holds."""
    settings = {"message_ttl": 5_001, "dead_letter_exchange": "x", "overflow": "drop-head"}
    found = broker(policy("theirs", 50, "^retry[.]5s$", **settings))

    assert tiers_held(TOPOLOGY, found) == ()
    assert returns_home(TIER, TOPOLOGY.vhost, found)
    assert displaced(found) == {}


def test_a_tier_returns_home_only_with_all_its_settings() -> None:
    """Rejected from a tier that lacks one of them, a message would be dropped."""
    theirs = policy("theirs", 50, "^retry", message_ttl=1, dead_letter_exchange="retry.return")

    assert returns_home(TIER, TOPOLOGY.vhost, with_former_tiers(broker()))
    assert not returns_home(TIER, TOPOLOGY.vhost, with_former_tiers(broker(theirs)))


def test_no_policy_at_all_is_said_so() -> None:
    """A queue that nothing governs has no decisive settings."""
    there = in_force("theirs", [], [])

    assert (there.definition, there.source) == ({}, "no policy")
