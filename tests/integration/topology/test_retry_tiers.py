"""Retry tiers: what waits there returns, also after other waits, other policies or an upgrade."""

from datetime import timedelta

import pytest

from integration.topology.broker import (
    TIER_SCALE,
    Broker,
    arrival,
    depth,
    others_policy,
    publish,
    run_cli,
)
from nexus_messaging.topology import (
    DEAD,
    RETIRED_TIERS,
    RETRY_RETURN,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    WORK_QUEUES,
)
from support.waiting import eventually


async def test_message_returns_from_its_tier_unchanged(broker: Broker) -> None:
    """After the wait it is in its queue, with routing key, headers and properties."""
    async with broker.channel("usage-ingest") as channel:
        sent = {"headers": {"nexus-attempt": 2}, "message_id": "id-1", "type": "tool.executed.v1"}
        await publish(channel, TIERS[0].name, TOOL_EXECUTED_QUEUE, **sent)
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)

    assert (message.exchange, message.routing_key) == (RETRY_RETURN, TOOL_EXECUTED_QUEUE)
    assert message.headers["nexus-attempt"] == 2
    assert (message.message_id, message.type) == ("id-1", "tool.executed.v1")


async def test_return_without_its_queue_is_kept(broker: Broker) -> None:
    """A message whose queue is missing goes to `unroutable` and delays no other."""
    path = f"bindings/{{vhost}}/e/{RETRY_RETURN}/q/{TOOL_EXECUTED_QUEUE}/{TOOL_EXECUTED_QUEUE}"
    await broker.ask("admin", "DELETE", path)

    async with broker.channel("usage-ingest") as channel:
        await publish(channel, TIERS[0].name, TOOL_EXECUTED_QUEUE)
        await publish(channel, TIERS[0].name, "usage-ingest.usage-outcomes")
        await arrival(channel, "usage-ingest.usage-outcomes")

    async with broker.channel("operator") as channel:
        message = await arrival(channel, UNROUTABLE)
    assert message.routing_key == TOOL_EXECUTED_QUEUE


@pytest.mark.parametrize(
    "settings",
    [
        {"max-length": 1000},
        {"max-length": 2, "overflow": "drop-head"},
        {"message-ttl": 3_600_000},
        {"dead-letter-exchange": DEAD, "dead-letter-strategy": "at-most-once"},
    ],
)
async def test_tier_needs_no_policy_to_return_everything(
    broker: Broker, settings: dict[str, object]
) -> None:
    """Nothing is lost of what was in it when its policy was displaced, nor of what came later."""
    tier, path = TIERS[0].name, "policies/{vhost}/theirs"
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        await broker.ask("operator", "PUT", path, **others_policy(11, **settings))
        for _ in range(10):
            await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        await eventually(lambda: depth(broker, TOOL_EXECUTED_QUEUE), lambda found: found == 11)
        await broker.ask("operator", "DELETE", path)

        await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        await eventually(lambda: depth(broker, TOOL_EXECUTED_QUEUE), lambda found: found == 12)


async def in_force(broker: Broker, tier: str, setting: str) -> int:
    """Read a setting of a tier's policy on the broker."""
    policy = await broker.ask("admin", "GET", f"policies/{{vhost}}/nexus.{tier}")
    return int(policy["definition"][setting])


async def test_longer_wait_keeps_messages_and_policy_of_the_tier(broker: Broker) -> None:
    """Of two waits the shorter is in force: apply says how to replace the queue, and fails."""
    tier = TIERS[1]
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier.name, TOOL_EXECUTED_QUEUE)
        applied = await run_cli(broker, "apply", "--tier-scale", "1")
        checked = await run_cli(broker, "check", "--tier-scale", "1")
        await publish(channel, tier.name, TOOL_EXECUTED_QUEUE)
        returned = [await arrival(channel, TOOL_EXECUTED_QUEUE) for _ in range(2)]

    wait = tier.wait // timedelta(milliseconds=1)
    assert {each.exchange for each in returned} == {RETRY_RETURN}
    assert await in_force(broker, tier.name, "message-ttl") == wait
    assert (applied[0], checked[0]) == (1, 1)
    line = f"different queue {tier.name}: x-message-ttl is {wait // 100}, should be {wait};"
    assert f"{line} cannot be changed: empty it, delete it, apply again" in applied[1]
    assert f"{len(TIERS)} differences remain" in applied[1]
    assert "nothing to change" not in applied[1]


async def test_shorter_wait_is_in_force_at_once(bare: Broker) -> None:
    """Apply drains what waits for longer, so that nothing behind it is late, and succeeds."""
    longest = TIERS[-1].name
    await run_cli(bare, "apply")
    async with bare.channel("usage-ingest") as channel:
        await publish(channel, longest, TOOL_EXECUTED_QUEUE)

        applied = await run_cli(bare, "apply", "--tier-scale", "0.0001")
        checked = await run_cli(bare, "check", "--tier-scale", "0.0001")
        await publish(channel, longest, TOOL_EXECUTED_QUEUE)
        returned = [await arrival(channel, TOOL_EXECUTED_QUEUE) for _ in range(2)]

    assert {each.exchange for each in returned} == {RETRY_RETURN}
    assert f"returned 1 messages of {longest} to their queues" in applied[1]
    assert "as described while its policy is in force" in checked[1]
    assert (applied[0], checked[0]) == (0, 0)


async def of_previous_release(broker: Broker, tier: str) -> None:
    """Make a retired tier as release 0.1.0 did: its wait and its return are by policy alone."""
    arguments = {"x-queue-type": "quorum"}
    await broker.ask("admin", "PUT", f"exchanges/{{vhost}}/{tier}", type="topic", durable=True)
    await broker.ask("admin", "PUT", f"queues/{{vhost}}/{tier}", durable=True, arguments=arguments)
    await broker.apply()


async def test_retired_tier_returns_messages_until_it_is_deleted(broker: Broker) -> None:
    """It serves the previous release; after its queue is deleted, apply removes the rest."""
    tier = RETIRED_TIERS[0].name
    await of_previous_release(broker, tier)
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)
    applied = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    checked = await run_cli(broker, "check", "--tier-scale", str(TIER_SCALE))

    await broker.ask("admin", "DELETE", f"queues/{{vhost}}/{tier}")
    removed = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    again = await run_cli(broker, "check", "--tier-scale", str(TIER_SCALE))

    kept = f"retired queue {tier}: kept for processes of the previous release;"
    assert message.exchange == RETRY_RETURN
    assert kept in applied[1]
    assert applied[1].endswith("nothing to change\n")
    assert kept in checked[1]
    assert (applied[0], checked[0]) == (0, 0)
    assert f"removed exchange {tier}" in removed[1]
    assert f"removed policy nexus.{tier}" in removed[1]
    assert again == (0, "the broker is as described\n")


async def test_retired_tier_with_messages_keeps_its_policy_and_is_drained(broker: Broker) -> None:
    """An upgrade drops nothing that waits for long, and an operator need not wait for it."""
    tier = RETIRED_TIERS[-1].name
    await of_previous_release(broker, tier)
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE, headers={"nexus-waits": 4})
        applied = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
        waiting = await depth(broker, tier)

        drained = await run_cli(broker, "drain", tier)
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)
    await broker.ask("admin", "DELETE", f"queues/{{vhost}}/{tier}")
    missing = await run_cli(broker, "drain", tier)

    assert applied[0] == 0
    assert waiting == 1
    assert drained == (0, f"returned 1 messages of {tier} to their queues\n")
    assert (message.exchange, message.headers["nexus-waits"]) == (RETRY_RETURN, 4)
    assert missing == (1, f"nexus-topology: the broker has no queue {tier}\n")


async def test_apply_returns_what_blocked_a_retired_tier_without_its_policy(
    broker: Broker,
) -> None:
    """A message that came in without a wait returns, and all behind it; later ones wait again."""
    tier, outcomes = RETIRED_TIERS[0].name, "usage-ingest.usage-outcomes"
    await of_previous_release(broker, tier)
    await broker.ask("admin", "DELETE", f"policies/{{vhost}}/nexus.{tier}")
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE, headers={"nexus-attempt": 2})
        await publish(channel, tier, outcomes)

        code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
        first = await arrival(channel, TOOL_EXECUTED_QUEUE)
        second = await arrival(channel, outcomes)
        await publish(channel, tier, outcomes)
        third = await arrival(channel, outcomes)

    assert code == 0
    assert f"created policy nexus.{tier}" in shown
    assert f"returned 2 messages of {tier} to their queues" in shown
    assert first.headers["nexus-attempt"] == 2
    assert {each.exchange for each in (first, second, third)} == {RETRY_RETURN}


async def test_drain_returns_what_a_displaced_policy_left_behind(broker: Broker) -> None:
    """A retired tier stays blocked after the foreign policy is removed."""
    tier = RETIRED_TIERS[0].name
    path = "policies/{vhost}/theirs"
    await of_previous_release(broker, tier)
    await broker.ask("operator", "PUT", path, **others_policy(11))
    async with broker.channel("usage-ingest") as channel:
        for _ in range(250):
            await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        refused = await run_cli(broker, "drain", tier)
        await broker.ask("operator", "DELETE", path)
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        applied = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
        blocked = await depth(broker, tier)

        drained = await run_cli(broker, "drain", tier)
        await eventually(lambda: depth(broker, TOOL_EXECUTED_QUEUE), lambda found: found == 251)
        again = await run_cli(broker, "drain", tier)

    assert refused[0] == 1
    assert f"{tier} does not return what is taken from it" in refused[1]
    assert applied[0] == 0
    assert "nothing to change" in applied[1]
    assert blocked == 251
    # The last one has a wait, and leaves by itself as soon as nothing is before it.
    assert drained in [
        (0, f"returned {number} messages of {tier} to their queues\n") for number in (250, 251)
    ]
    assert again == (0, f"returned 0 messages of {tier} to their queues\n")


async def test_message_with_its_own_wait_is_dropped_by_a_retired_tier_without_policy(
    broker: Broker,
) -> None:
    """So copies carry none: the return of a retired tier is in its policy, too."""
    tier = RETIRED_TIERS[0].name
    await of_previous_release(broker, tier)
    await broker.ask("admin", "DELETE", f"policies/{{vhost}}/nexus.{tier}")
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE, expiration=timedelta(milliseconds=50))
        await eventually(lambda: depth(broker, tier), lambda waiting: waiting == 0)
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)

        code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
        await eventually(lambda: depth(broker, TOOL_EXECUTED_QUEUE), lambda found: found == 1)

    assert code == 0
    assert f"returned 1 messages of {tier} to their queues" in shown
    assert await depth(broker, UNROUTABLE) == 0


async def test_drain_returns_each_message_to_its_own_queue(broker: Broker) -> None:
    """Messages of all services wait in the longest tier; each returns before its wait is over."""
    tier = TIERS[-1].name
    async with broker.channel("admin") as channel:
        for queue in WORK_QUEUES:
            await publish(channel, tier, queue, headers={"nexus-waits": 4}, message_id=queue)

        code, _ = await run_cli(broker, "drain", tier)
        got = [await arrival(channel, queue) for queue in WORK_QUEUES]

    assert code == 0
    assert [each.message_id for each in got] == list(WORK_QUEUES)
    assert {each.exchange for each in got} == {RETRY_RETURN}
    assert {each.headers["nexus-waits"] for each in got} == {4}
