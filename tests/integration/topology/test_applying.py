"""`nexus-topology apply`, `check` and `render` on a real broker."""

import json

import aiohttp
import pytest
from yarl import URL

from integration.topology.broker import (
    PASSWORDS,
    TIER_SCALE,
    Broker,
    others_policy,
    run_cli,
)
from nexus_messaging.topology import (
    RETRY_RETURN,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    USER_CREATED_QUEUE,
)


async def test_second_apply_changes_nothing(bare: Broker) -> None:
    """The command is idempotent; `check` finds no difference; no password is printed."""
    first = await run_cli(bare, "apply")
    second = await run_cli(bare, "apply")
    checked = await run_cli(bare, "check")

    assert first[0] == 0
    assert f"created vhost {bare.vhost}" in first[1]
    assert f"created queue {TOOL_EXECUTED_QUEUE}" in first[1]
    assert second == (0, "nothing to change\n")
    assert checked == (0, "the broker is as described\n")
    assert not any(password in first[1] for password in PASSWORDS.values())


async def test_drift_is_shown_and_ours_is_repaired(broker: Broker) -> None:
    """`check` names what is missing, different and extra; `apply` repairs all but the foreign."""
    ask = broker.ask
    key = "tool.executed.*"
    path = "bindings/{vhost}/e/events/q/" + TOOL_EXECUTED_QUEUE
    await ask("admin", "DELETE", f"{path}/{key}")
    await ask("admin", "POST", path, routing_key="old.*", arguments={"x-note": "stale"})
    await ask("admin", "POST", "bindings/{vhost}/e/events/e/internal", routing_key="#")
    tier = {"pattern": "^retry", "definition": {"message-ttl": 1}, "apply-to": "queues"}
    await ask("admin", "PUT", "policies/{vhost}/nexus.retry.1", **tier)
    await ask("admin", "PUT", "policies/{vhost}/nexus.old", **tier)
    await ask("admin", "PUT", "policies/{vhost}/theirs", **tier)
    await ask("admin", "PUT", "queues/{vhost}/theirs", durable=True)

    code, shown = await run_cli(broker, "check", "--tier-scale", str(TIER_SCALE))
    _, left = await broker.apply()

    assert code == 1
    assert shown.splitlines() == [
        (
            "different policy nexus.retry.1: pattern is ^retry, should be ^retry\\.1$; "
            "dead-letter-exchange is absent, should be retry.return; "
            "dead-letter-strategy is absent, should be at-least-once; "
            "message-ttl is 1, should be 50; overflow is absent, should be reject-publish; "
            "priority is 0, should be 10"
        ),
        "extra policy nexus.old",
        "foreign policy theirs: not described, left alone",
        "foreign queue theirs: not described, left alone",
        f"missing binding events queue {TOOL_EXECUTED_QUEUE} {key} {{}}",
        "extra binding events exchange internal # {}",
        f'extra binding events queue {TOOL_EXECUTED_QUEUE} old.* {{"x-note": "stale"}}',
    ]
    assert [str(difference) for difference in left] == await broker.drift()
    assert {difference.subject for difference in left} == {"policy theirs", "queue theirs"}


async def test_apply_fails_while_a_policy_of_others_displaces_ours(broker: Broker) -> None:
    """The output names that policy and its priority."""
    operators = others_policy(11)
    await broker.ask("operator", "PUT", "policies/{vhost}/theirs", **operators)

    code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    await broker.ask("operator", "DELETE", "policies/{vhost}/theirs")
    repaired = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))

    assert code == 1
    assert (
        f"different settings of queue {TIERS[-1].name}: max-length is 1000, should be absent"
        in shown
    )
    assert shown.count("in force: policy theirs (priority 11); remove what is not") == len(TIERS)
    assert repaired == (0, "nothing to change\n")


async def test_policy_is_kept_until_its_queue_is_deleted(broker: Broker) -> None:
    """Without the policy the broker would drop what expires in the queue."""
    former = {
        "pattern": r"^retry\.30s$",
        "apply-to": "queues",
        "definition": {"message-ttl": 3_600_000, "dead-letter-exchange": RETRY_RETURN},
    }
    await broker.ask("admin", "PUT", "policies/{vhost}/nexus.retry.30s", **former)
    arguments = {"x-queue-type": "quorum"}
    await broker.ask("admin", "PUT", "queues/{vhost}/retry.30s", durable=True, arguments=arguments)

    kept = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    await broker.ask("admin", "DELETE", "queues/{vhost}/retry.30s")
    removed = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))

    assert kept[0] == 0
    assert "extra policy nexus.retry.30s: still in force for retry.30s: empty it" in kept[1]
    assert removed == (0, "removed policy nexus.retry.30s\n")


async def test_queue_of_a_wrong_type_is_reported_and_kept(bare: Broker) -> None:
    """`apply` fails on a queue that could only be replaced together with its messages."""
    await bare.ask("admin", "PUT", "vhosts/{vhost}")
    await bare.ask("admin", "PUT", f"queues/{{vhost}}/{USER_CREATED_QUEUE}", durable=True)

    code, shown = await run_cli(bare, "apply")

    assert code == 1
    assert f"different queue {USER_CREATED_QUEUE}: x-queue-type is " in shown
    assert "cannot be changed: empty it, delete it, apply again" in shown
    kept = await bare.ask("admin", "GET", f"queues/{{vhost}}/{USER_CREATED_QUEUE}")
    assert kept["type"] == "classic"


async def test_changed_password_is_set_again(broker: Broker) -> None:
    """Passwords are compared by their salted hash; the one in the settings is set."""
    await broker.ask("admin", "PUT", "users/publisher", password="other", tags="")

    shown = await broker.drift()
    changes, _ = await broker.apply()

    assert shown == ["different user publisher: password is another, should be set"]
    assert [change.subject for change in changes] == ["user publisher"]
    async with broker.channel("publisher"):
        pass


async def test_rendered_definitions_can_be_imported(bare: Broker) -> None:
    """The broker then lacks nothing, and no user can log in before passwords are set."""
    _, rendered = await run_cli(
        bare, "render", "--tier-scale", str(TIER_SCALE), "--broker-version", bare.node.version
    )

    await bare.ask("admin", "POST", "definitions", **json.loads(rendered))

    assert await bare.drift() == [
        f"different user {user}: password is another, should be set" for user in PASSWORDS
    ]
    with pytest.raises(aiohttp.ClientResponseError, match="401"):
        await bare.ask("operator", "GET", "whoami")


async def test_refused_login_is_one_line_with_advice(bare: Broker) -> None:
    """The line says what to do and holds no password."""
    wrong = str(URL(bare.management_url).with_password("wr0ng"))

    code, shown = await run_cli(bare, "check", management_url=wrong)

    assert code == 1
    assert shown == (
        "nexus-topology: the broker refused the user of MANAGEMENT_URL: "
        "name an administrator and its password\n"
    )
