"""What waits in a retry tier: it returns, and is freed where a policy kept it."""

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
    RETRY_RETURN,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    WORK_QUEUES,
)
from rig.waiting import eventually


async def test_a_message_returns_from_its_tier_as_it_was(broker: Broker) -> None:
    """After the wait it is back in its queue: key, headers and properties kept."""
    async with broker.channel("usage-ingest") as channel:
        sent = {"headers": {"nexus-attempt": 2}, "message_id": "id-1", "type": "tool.executed.v1"}
        await publish(channel, TIERS[0].name, TOOL_EXECUTED_QUEUE, **sent)
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)

    assert (message.exchange, message.routing_key) == (RETRY_RETURN, TOOL_EXECUTED_QUEUE)
    assert message.headers["nexus-attempt"] == 2
    assert (message.message_id, message.type) == ("id-1", "tool.executed.v1")


async def test_a_return_without_its_queue_is_kept(broker: Broker) -> None:
    """A tier whose return has no queue puts the message aside and holds nobody else's back."""
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
async def test_a_tier_needs_no_policy_to_send_everything_home(
    broker: Broker, settings: dict[str, object]
) -> None:
    """What was in it when its policy was displaced, and what came in meanwhile, lose nothing."""
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


async def of_former_release(broker: Broker, tier: str) -> None:
    """Make a tier as release 0.1.0 did: its wait and its way home are its policy's alone."""
    await broker.ask("admin", "DELETE", f"queues/{{vhost}}/{tier}")
    arguments = {"x-queue-type": "quorum"}
    await broker.ask("admin", "PUT", f"queues/{{vhost}}/{tier}", durable=True, arguments=arguments)
    await broker.apply()


async def test_a_tier_of_a_former_release_is_named_and_works_by_its_policy(broker: Broker) -> None:
    """Applying succeeds: to replace the tier is for a person, who does it when it is empty."""
    tier = TIERS[0].name
    await of_former_release(broker, tier)

    code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)

    assert code == 0
    assert f"different queue {tier}: x-dead-letter-exchange is absent" in shown
    assert "cannot be changed: empty it, delete it, apply again" in shown
    assert message.exchange == RETRY_RETURN


async def test_applying_sends_home_what_blocked_a_former_tier_without_its_policy(
    broker: Broker,
) -> None:
    """A message that came in without a wait, and all behind it, return; new ones wait again."""
    tier, outcomes = TIERS[0].name, "usage-ingest.usage-outcomes"
    await of_former_release(broker, tier)
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
    assert f"sent 2 messages of {tier} home" in shown
    assert first.headers["nexus-attempt"] == 2
    assert {each.exchange for each in (first, second, third)} == {RETRY_RETURN}


async def test_draining_sends_home_what_a_displaced_policy_left_behind(broker: Broker) -> None:
    """After the foreign policy has gone a former release's tier stands still nevertheless."""
    tier = TIERS[0].name
    path = "policies/{vhost}/theirs"
    await of_former_release(broker, tier)
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
    assert f"{tier} does not send home what is taken from it" in refused[1]
    assert applied[0] == 0
    assert "nothing to change" in applied[1]
    assert blocked == 251
    # The last one has a wait, and leaves by itself as soon as nothing is before it.
    assert drained in [(0, f"sent {number} messages of {tier} home\n") for number in (250, 251)]
    assert again == (0, f"sent 0 messages of {tier} home\n")


async def test_a_message_with_its_own_wait_is_dropped_by_a_former_tier_without_policy(
    broker: Broker,
) -> None:
    """Why copies carry none: a former release's tier has its way home from its policy, too."""
    tier = TIERS[0].name
    await of_former_release(broker, tier)
    await broker.ask("admin", "DELETE", f"policies/{{vhost}}/nexus.{tier}")
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, tier, TOOL_EXECUTED_QUEUE, expiration=timedelta(milliseconds=50))
        await eventually(lambda: depth(broker, tier), lambda waiting: waiting == 0)
        await publish(channel, tier, TOOL_EXECUTED_QUEUE)

        code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
        await eventually(lambda: depth(broker, TOOL_EXECUTED_QUEUE), lambda found: found == 1)

    assert code == 0
    assert f"sent 1 messages of {tier} home" in shown
    assert await depth(broker, UNROUTABLE) == 0


async def test_draining_the_longest_tier_mixes_up_nobody_s_messages(broker: Broker) -> None:
    """All services wait there together; each message comes to its own queue, before its time."""
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
