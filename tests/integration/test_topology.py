"""The described topology on a real broker: its routes, its walls and what an operator can do."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from local_stack.rabbitmq import RabbitNode
from nexus_messaging.drift import Difference
from nexus_messaging.management import Management, apply_topology, connect, read_drift
from nexus_messaging.topology import (
    DEAD,
    EVENTS,
    INTERNAL,
    RETRY_RETURN,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    WORK_QUEUES,
    dead_letter_queue,
    metering_topology,
)
from rig.waiting import eventually

TIER_SCALE = 0.01
DEADLINE = 20.0
PASSWORDS = {user.name: f"{user.name} s3cret" for user in metering_topology().users}
ROUTES = [
    ("publisher", EVENTS, "tool.executed.v1", TOOL_EXECUTED_QUEUE),
    ("publisher", EVENTS, "user.created.v9", USER_CREATED_QUEUE),
    ("customer-provisioner", INTERNAL, "user.created.v1", USER_CREATED_QUEUE),
    (
        "customer-provisioner",
        INTERNAL,
        "customer.provisioned.v1",
        "usage-ingest.customer-provisioned",
    ),
    ("usage-ingest", INTERNAL, "usage.recorded.v1", USAGE_RECORDED_QUEUE),
    ("stripe-reporter", INTERNAL, "usage.reported.v1", "usage-ingest.usage-outcomes"),
    ("stripe-reporter", INTERNAL, "usage.rejected.v1", "usage-ingest.usage-outcomes"),
]
"""Who sends what where, and the queue it reaches."""


@dataclass(frozen=True)
class Broker:
    """One vhost of the node under test, with the metering topology applied by an administrator."""

    node: RabbitNode
    vhost: str
    management: Management

    @property
    def management_url(self) -> str:
        """The management API's address with the administrator's login."""
        return administration(self.node)

    async def apply(self) -> tuple[list[Difference], tuple[Difference, ...]]:
        """Apply the topology; return what was changed and what was left."""
        changes: list[Difference] = []
        left = await apply_topology(
            self.management,
            PASSWORDS,
            vhost=self.vhost,
            tier_scale=TIER_SCALE,
            on_change=changes.append,
        )
        return changes, left

    async def drift(self) -> list[str]:
        """Read the drift as the lines an operator sees."""
        found = await read_drift(
            self.management, PASSWORDS, vhost=self.vhost, tier_scale=TIER_SCALE
        )
        return [str(difference) for difference in found]

    @asynccontextmanager
    async def channel(self, user: str) -> AsyncIterator[AbstractChannel]:
        """Open a channel as one of the described users, or as the administrator."""
        password = PASSWORDS.get(user, self.node.admin.password)
        url = self.node.amqp_url(user, password, self.vhost)
        async with await aio_pika.connect(url) as connection:
            yield await connection.channel(publisher_confirms=True, on_return_raises=True)

    async def ask(self, user: str, method: str, path: str, **body: Any) -> Any:
        """Call the management API as a user; ``{vhost}`` in the path is filled in."""
        password = PASSWORDS.get(user, self.node.admin.password)
        url = f"{self.node.management_url}/api/{path.format(vhost=self.vhost)}"
        login = {"Authorization": aiohttp.encode_basic_auth(user, password)}
        async with (
            aiohttp.ClientSession(headers=login, raise_for_status=True) as session,
            session.request(method, URL(url, encoded=True), json=body or None) as answer,
        ):
            return await answer.json(content_type=None)


def administration(node: RabbitNode) -> str:
    """Build the management API's address with the administrator's login."""
    url = URL(node.management_url)
    return str(url.with_user(node.admin.user).with_password(node.admin.password))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """Run one RabbitMQ node for all tests."""
    with RabbitNode.start(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
async def bare(node: RabbitNode) -> AsyncIterator[Broker]:
    """Offer a vhost's name that does not exist yet, and remove what a test made under it."""
    vhost = f"metering-{uuid.uuid4().hex[:8]}"
    async with connect(administration(node)) as management:
        broker = Broker(node, vhost, management)
        yield broker
        with suppress(aiohttp.ClientResponseError):
            await broker.ask("admin", "DELETE", "vhosts/{vhost}")


@pytest.fixture
async def broker(bare: Broker) -> Broker:
    """Offer a vhost with the metering topology."""
    await bare.apply()
    return bare


async def publish(channel: AbstractChannel, exchange: str, key: str, **properties: Any) -> None:
    """Publish one persistent message, mandatory and confirmed."""
    message = aio_pika.Message(b"{}", delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
    route = await channel.get_exchange(exchange, ensure=False)
    await route.publish(message, key, mandatory=True, timeout=DEADLINE)


async def arrival(channel: AbstractChannel, name: str) -> AbstractIncomingMessage:
    """Wait for the next message of a queue and take it, unacknowledged."""
    queue = await channel.get_queue(name)
    async with queue.iterator(timeout=DEADLINE) as messages:
        return await anext(messages)


async def depth(broker: Broker, name: str) -> int:
    """Count what is ready in a queue."""
    async with broker.channel("admin") as channel:
        queue = await channel.get_queue(name)
        return queue.declaration_result.message_count or 0


async def run_cli(
    broker: Broker, *arguments: str, management_url: str | None = None
) -> tuple[int, str]:
    """Run ``nexus-topology`` with every setting; return its exit code and all it printed."""
    users = metering_topology().users
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nexus_messaging.topology_cli",
        *arguments,
        env={
            "PYTHONPATH": ":".join(sys.path),
            "MANAGEMENT_URL": management_url or broker.management_url,
            "VHOST": broker.vhost,
            **{user.password_setting: PASSWORDS[user.name] for user in users},
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_applying_a_second_time_changes_nothing(bare: Broker) -> None:
    """The command is idempotent and says so; the check agrees with it; no password is printed."""
    first = await run_cli(bare, "apply")
    second = await run_cli(bare, "apply")
    checked = await run_cli(bare, "check")

    assert first[0] == 0
    assert f"created vhost {bare.vhost}" in first[1]
    assert f"created queue {TOOL_EXECUTED_QUEUE}" in first[1]
    assert second == (0, "nothing to change\n")
    assert checked == (0, "the broker is as described\n")
    assert not any(password in first[1] for password in PASSWORDS.values())


async def test_drift_is_shown_and_what_is_ours_is_mended(broker: Broker) -> None:
    """The check names what is missing, different and extra; apply mends all but the foreign."""
    ask = broker.ask
    key = "tool.executed.*"
    path = "bindings/{vhost}/e/events/q/" + TOOL_EXECUTED_QUEUE
    await ask("admin", "DELETE", f"{path}/{key}")
    await ask("admin", "POST", path, routing_key="old.*", arguments={"x-note": "stale"})
    await ask("admin", "POST", "bindings/{vhost}/e/events/e/internal", routing_key="#")
    tier = {"pattern": "^retry", "definition": {"message-ttl": 1}, "apply-to": "queues"}
    await ask("admin", "PUT", "policies/{vhost}/nexus.retry.5s", **tier)
    await ask("admin", "PUT", "policies/{vhost}/nexus.old", **tier)
    await ask("admin", "PUT", "policies/{vhost}/theirs", **tier)
    await ask("admin", "PUT", "queues/{vhost}/theirs", durable=True)

    code, shown = await run_cli(broker, "check", "--tier-scale", str(TIER_SCALE))
    _, left = await broker.apply()

    assert code == 1
    assert shown.splitlines() == [
        (
            "different policy nexus.retry.5s: pattern is ^retry, should be ^retry\\.5s$; "
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


def others_policy(priority: int, **settings: object) -> dict[str, object]:
    """Return a policy for all retry tiers, as somebody else may set one."""
    definition = {"max-length": 1000, **settings}
    return {
        "pattern": "^retry",
        "priority": priority,
        "definition": definition,
        "apply-to": "queues",
    }


async def test_applying_refuses_while_a_policy_of_others_displaces_ours(broker: Broker) -> None:
    """It says which, and of which priority; ours alone can't have any effect."""
    operators = others_policy(11)
    await broker.ask("operator", "PUT", "policies/{vhost}/theirs", **operators)

    code, shown = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))
    await broker.ask("operator", "DELETE", "policies/{vhost}/theirs")
    mended = await run_cli(broker, "apply", "--tier-scale", str(TIER_SCALE))

    assert code == 1
    assert "different settings of queue retry.1h: max-length is 1000, should be absent" in shown
    assert shown.count("in force: policy theirs (priority 11); remove what is not") == len(TIERS)
    assert mended == (0, "nothing to change\n")


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


async def test_a_former_tier_keeps_its_policy_until_it_is_gone(broker: Broker) -> None:
    """Without the policy the broker would drop what waits there as soon as its time is over."""
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
    assert "extra policy nexus.retry.30s: still obeyed by retry.30s: empty it" in kept[1]
    assert removed == (0, "removed policy nexus.retry.30s\n")


async def test_a_queue_of_the_wrong_type_is_reported_and_kept(bare: Broker) -> None:
    """Apply fails on a queue that it could only replace by deleting what it holds."""
    await bare.ask("admin", "PUT", "vhosts/{vhost}")
    await bare.ask("admin", "PUT", f"queues/{{vhost}}/{USER_CREATED_QUEUE}", durable=True)

    code, shown = await run_cli(bare, "apply")

    assert code == 1
    assert f"different queue {USER_CREATED_QUEUE}: x-queue-type is " in shown
    assert "cannot be changed: empty it, delete it, apply again" in shown
    kept = await bare.ask("admin", "GET", f"queues/{{vhost}}/{USER_CREATED_QUEUE}")
    assert kept["type"] == "classic"


async def test_a_changed_password_is_put_back(broker: Broker) -> None:
    """Passwords are compared by their salted hash, and the one in the settings wins."""
    await broker.ask("admin", "PUT", "users/publisher", password="other", tags="")

    shown = await broker.drift()
    changes, _ = await broker.apply()

    assert shown == ["different user publisher: password is another, should be set"]
    assert [change.subject for change in changes] == ["user publisher"]
    async with broker.channel("publisher"):
        pass


async def test_rendered_definitions_can_be_imported(bare: Broker) -> None:
    """A broker that imports them lacks nothing, and nobody can log in before passwords are set."""
    _, rendered = await run_cli(
        bare, "render", "--tier-scale", str(TIER_SCALE), "--broker-version", bare.node.version
    )

    await bare.ask("admin", "POST", "definitions", **json.loads(rendered))

    assert await bare.drift() == [
        f"different user {user}: password is another, should be set" for user in PASSWORDS
    ]
    with pytest.raises(aiohttp.ClientResponseError, match="401"):
        await bare.ask("operator", "GET", "whoami")


@pytest.mark.parametrize("exchange", [*(tier.name for tier in TIERS), DEAD, INTERNAL])
async def test_an_unknown_key_comes_back_to_the_sender(broker: Broker, exchange: str) -> None:
    """A mistyped queue or event is returned, never swallowed, on each exchange of ours."""
    async with broker.channel("admin") as channel:
        with pytest.raises(DeliveryError):
            await publish(channel, exchange, "usage-ingest.tool-exectued")


@pytest.mark.parametrize("exchange", [*(tier.name for tier in TIERS), DEAD])
async def test_a_service_cannot_reach_the_queue_of_another(broker: Broker, exchange: str) -> None:
    """Tiers and the dead exchange take from a service only the names of its own queues."""
    async with broker.channel("stripe-reporter") as channel:
        await publish(channel, exchange, USAGE_RECORDED_QUEUE)
        with pytest.raises(ChannelAccessRefused):
            await publish(channel, exchange, TOOL_EXECUTED_QUEUE)


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("publisher", INTERNAL, "tool.executed.v1"),
        ("publisher", EVENTS, "usage.reported.v1"),
        ("publisher", EVENTS, "tool.executed.v1.more"),
        ("publisher", TIERS[0].name, TOOL_EXECUTED_QUEUE),
        ("publisher", RETRY_RETURN, TOOL_EXECUTED_QUEUE),
        ("publisher", "", TOOL_EXECUTED_QUEUE),
        ("usage-ingest", INTERNAL, "usage.reported.v1"),
        ("usage-ingest", EVENTS, "tool.executed.v1"),
        ("usage-ingest", RETRY_RETURN, TOOL_EXECUTED_QUEUE),
        ("usage-ingest", "", TOOL_EXECUTED_QUEUE),
        ("stripe-reporter", INTERNAL, "usage.recorded.v1"),
        ("customer-provisioner", INTERNAL, "usage.recorded.v1"),
        ("operator", "", TOOL_EXECUTED_QUEUE),
    ],
)
async def test_nobody_publishes_what_is_not_theirs(
    broker: Broker, user: str, exchange: str, key: str
) -> None:
    """Each user is refused every exchange and event type that its task does not need."""
    async with broker.channel(user) as channel:
        with pytest.raises(ChannelAccessRefused):
            await publish(channel, exchange, key)


@pytest.mark.parametrize(("user", "exchange", "key", "queue"), ROUTES)
async def test_an_event_reaches_the_queue_of_its_consumer(
    broker: Broker, user: str, exchange: str, key: str, queue: str
) -> None:
    """Each event goes from its producer's user to its consumer's queue, read by that user."""
    async with broker.channel(user) as channel:
        await publish(channel, exchange, key)

    async with broker.channel(queue.split(".", maxsplit=1)[0]) as channel:
        message = await arrival(channel, queue)
        await message.ack()

    assert message.routing_key == key


async def test_a_service_neither_declares_nor_reads_what_is_not_its_own(broker: Broker) -> None:
    """No service has the right to configure, nor to consume from another's queue."""
    async with broker.channel("usage-ingest") as channel:
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("mine", durable=True)
    async with broker.channel("usage-ingest") as channel:
        foreign = await channel.get_queue(USAGE_RECORDED_QUEUE, ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await foreign.get(fail=False)


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_publisher_cannot_forge_our_events_by_copies(broker: Broker, header: str) -> None:
    """Old brokers let CC and BCC past topic permissions: no route from outside may use that."""
    ours = WORK_QUEUES[2:]
    forged = ["usage.recorded.v1", "usage.reported.v1", "customer.provisioned.v1", *ours]
    async with broker.channel("publisher") as channel:
        with suppress(ChannelAccessRefused):
            await publish(channel, EVENTS, "tool.executed.v1", headers={header: forged})

    assert [await depth(broker, queue) for queue in ours] == [0, 0, 0]


async def test_an_event_without_a_route_is_kept(broker: Broker) -> None:
    """An outside event that nothing is bound to is confirmed and waits in ``unroutable``."""
    path = f"bindings/{{vhost}}/e/events/q/{TOOL_EXECUTED_QUEUE}/tool.executed.*"
    await broker.ask("admin", "DELETE", path)

    async with broker.channel("publisher") as channel:
        await publish(channel, EVENTS, "tool.executed.v1")

    async with broker.channel("operator") as channel:
        message = await arrival(channel, UNROUTABLE)
    assert (message.exchange, message.routing_key) == (EVENTS, "tool.executed.v1")


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


@pytest.mark.parametrize(("user", "exchange", "key", "queue"), ROUTES)
async def test_what_the_broker_gives_up_on_is_dead_lettered(
    broker: Broker, user: str, exchange: str, key: str, queue: str
) -> None:
    """A rejected event goes to its queue's own dead letters, though its key is its type."""
    async with broker.channel(user) as channel:
        await publish(channel, exchange, key)

    async with broker.channel("admin") as channel:
        await (await arrival(channel, queue)).reject(requeue=False)
        message = await arrival(channel, dead_letter_queue(queue))
    assert (message.exchange, message.routing_key) == (DEAD, queue)


async def test_an_operator_looks_at_a_dead_letter_and_moves_it_back(broker: Broker) -> None:
    """Thirty looks lose nothing, and the management UI's move brings it back as it was."""
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, DEAD, TOOL_EXECUTED_QUEUE, headers={"nexus-reason": "poison"})

    for _ in range(30):
        look = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        seen = await broker.ask("operator", "POST", f"queues/{{vhost}}/{dead}/get", **look)
        assert len(seen) == 1
    await move(broker, dead, TOOL_EXECUTED_QUEUE)

    async with broker.channel("usage-ingest") as channel:
        message = await arrival(channel, TOOL_EXECUTED_QUEUE)
    assert message.headers["nexus-reason"] == "poison"
    assert (message.exchange, message.routing_key) == ("", TOOL_EXECUTED_QUEUE)


async def move(broker: Broker, source: str, destination: str) -> None:
    """Do what *Move messages* in the management UI does, with the operator's login."""
    here = f"amqp:///{broker.vhost}"
    shovel = {
        "src-protocol": "amqp091",
        "src-uri": here,
        "src-queue": source,
        "src-prefetch-count": 1000,
        "src-delete-after": "queue-length",
        "dest-protocol": "amqp091",
        "dest-uri": here,
        "dest-queue": destination,
        "dest-add-forward-headers": False,
        "ack-mode": "on-confirm",
    }
    await broker.ask(
        "operator", "PUT", f"parameters/shovel/{{vhost}}/Move%20from%20{source}", value=shovel
    )


async def test_an_operator_changes_nothing_but_policies_and_shovels(broker: Broker) -> None:
    """An operator neither declares, deletes nor publishes, and is no administrator."""
    with pytest.raises(aiohttp.ClientResponseError, match=r"40[13]"):
        await broker.ask("operator", "DELETE", f"queues/{{vhost}}/{USER_CREATED_QUEUE}")
    with pytest.raises(aiohttp.ClientResponseError, match=r"40[13]"):
        await broker.ask("operator", "PUT", "queues/{vhost}/theirs", durable=True)
    with pytest.raises(aiohttp.ClientResponseError, match="401"):
        await broker.ask("operator", "GET", "users")


async def test_a_refused_login_is_one_line_with_advice(bare: Broker) -> None:
    """The command ends with one line that says what to do and holds no password."""
    wrong = str(URL(bare.management_url).with_password("wr0ng"))

    code, shown = await run_cli(bare, "check", management_url=wrong)

    assert code == 1
    assert shown == (
        "nexus-topology: the broker refused the user of MANAGEMENT_URL: "
        "name an administrator and its password\n"
    )
