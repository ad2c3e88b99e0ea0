"""Which user reaches which queue on a real broker, and what an operator can do."""

from contextlib import suppress

import aiohttp
import pytest
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelAccessRefused

from integration.topology.broker import Broker, arrival, depth, publish
from nexus_messaging.topology import (
    DEAD,
    EVENTS,
    INTERNAL,
    NOTICES,
    OUTSIDE_QUEUES,
    RETRY_RETURN,
    SUBSCRIPTION_CHANGED_QUEUE,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_RECORDED_QUEUE,
    USER_ASSIGNED_QUEUE,
    USER_CREATED_QUEUE,
    USER_UPDATED_QUEUE,
    WORK_QUEUES,
    dead_letter_queue,
)

ROUTES = [
    ("publisher", EVENTS, "tool.executed.v1", TOOL_EXECUTED_QUEUE),
    ("publisher", EVENTS, "user.created.v9", USER_CREATED_QUEUE),
    ("publisher", EVENTS, "user.updated.v1", USER_UPDATED_QUEUE),
    ("customer-provisioner", INTERNAL, "user.created.v1", USER_CREATED_QUEUE),
    (
        "customer-provisioner",
        INTERNAL,
        "customer.provisioned.v1",
        "usage-ingest.customer-provisioned",
    ),
    ("customer-provisioner", INTERNAL, "user.assigned.v1", USER_ASSIGNED_QUEUE),
    ("customer-provisioner", INTERNAL, "subscription.changed.v1", SUBSCRIPTION_CHANGED_QUEUE),
    ("usage-ingest", INTERNAL, "usage.recorded.v1", USAGE_RECORDED_QUEUE),
    ("stripe-reporter", INTERNAL, "usage.reported.v1", "usage-ingest.usage-outcomes"),
    ("stripe-reporter", INTERNAL, "usage.rejected.v1", "usage-ingest.usage-outcomes"),
]
"""User, exchange, routing key, and the queue that the message reaches."""


@pytest.mark.parametrize("exchange", [*(tier.name for tier in TIERS), DEAD, INTERNAL])
async def test_unknown_key_is_returned_to_the_publisher(broker: Broker, exchange: str) -> None:
    """A mistyped queue or event type is returned, on each exchange of ours."""
    async with broker.channel("admin") as channel:
        with pytest.raises(DeliveryError):
            await publish(channel, exchange, "usage-ingest.tool-exectued")


@pytest.mark.parametrize("exchange", [*(tier.name for tier in TIERS), DEAD])
async def test_service_cannot_publish_to_the_queue_of_another(
    broker: Broker, exchange: str
) -> None:
    """Tiers and `dead` take from a service only the names of its own queues."""
    async with broker.channel("stripe-reporter") as channel:
        await publish(channel, exchange, USAGE_RECORDED_QUEUE)
        with pytest.raises(ChannelAccessRefused):
            await publish(channel, exchange, TOOL_EXECUTED_QUEUE)


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("publisher", INTERNAL, "tool.executed.v1"),
        ("publisher", EVENTS, "usage.reported.v1"),
        ("publisher", EVENTS, "user.assigned.v1"),
        ("publisher", INTERNAL, "user.assigned.v1"),
        ("publisher", EVENTS, "tool.executed.v1.more"),
        ("publisher", TIERS[0].name, TOOL_EXECUTED_QUEUE),
        ("publisher", RETRY_RETURN, TOOL_EXECUTED_QUEUE),
        ("publisher", "", TOOL_EXECUTED_QUEUE),
        ("usage-ingest", INTERNAL, "usage.reported.v1"),
        ("usage-ingest", EVENTS, "tool.executed.v1"),
        ("usage-ingest", NOTICES, "usage.recorded.v1"),
        ("publisher", NOTICES, "usage.threshold_reached.v1"),
        ("stripe-reporter", NOTICES, "usage.threshold_reached.v1"),
        ("usage-ingest", RETRY_RETURN, TOOL_EXECUTED_QUEUE),
        ("usage-ingest", "", TOOL_EXECUTED_QUEUE),
        ("stripe-reporter", INTERNAL, "usage.recorded.v1"),
        ("customer-provisioner", INTERNAL, "usage.recorded.v1"),
        ("operator", "", TOOL_EXECUTED_QUEUE),
    ],
)
async def test_user_publishes_only_what_it_needs(
    broker: Broker, user: str, exchange: str, key: str
) -> None:
    """Each user is refused the exchanges and event types that its task does not need."""
    async with broker.channel(user) as channel:
        with pytest.raises(ChannelAccessRefused):
            await publish(channel, exchange, key)


@pytest.mark.parametrize(("user", "exchange", "key", "queue"), ROUTES)
async def test_event_reaches_the_queue_of_its_consumer(
    broker: Broker, user: str, exchange: str, key: str, queue: str
) -> None:
    """Published by the user of its producer, read by the user of its consumer."""
    async with broker.channel(user) as channel:
        await publish(channel, exchange, key)

    async with broker.channel(queue.split(".", maxsplit=1)[0]) as channel:
        message = await arrival(channel, queue)
        await message.ack()

    assert message.routing_key == key


async def test_service_declares_nothing_and_reads_its_own_queues_only(broker: Broker) -> None:
    """A service may not configure, nor consume from the queue of another."""
    async with broker.channel("usage-ingest") as channel:
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("mine", durable=True)
    async with broker.channel("usage-ingest") as channel:
        foreign = await channel.get_queue(USAGE_RECORDED_QUEUE, ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await foreign.get(fail=False)


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_publisher_cannot_forge_internal_events_by_cc(broker: Broker, header: str) -> None:
    """Old brokers do not check CC and BCC against topic permissions."""
    ours = [queue for queue in WORK_QUEUES if queue not in OUTSIDE_QUEUES]
    internal = ("usage.recorded", "usage.reported", "customer.provisioned", "user.assigned")
    forged = [*(f"{each}.v1" for each in internal), *ours]
    async with broker.channel("publisher") as channel:
        with suppress(ChannelAccessRefused):
            await publish(channel, EVENTS, "tool.executed.v1", headers={header: forged})

    assert [await depth(broker, queue) for queue in ours] == [0] * len(ours)


async def test_event_without_a_binding_is_kept(broker: Broker) -> None:
    """An outside event without a binding is confirmed and goes to ``unroutable``."""
    path = f"bindings/{{vhost}}/e/events/q/{TOOL_EXECUTED_QUEUE}/tool.executed.*"
    await broker.ask("admin", "DELETE", path)

    async with broker.channel("publisher") as channel:
        await publish(channel, EVENTS, "tool.executed.v1")

    async with broker.channel("operator") as channel:
        message = await arrival(channel, UNROUTABLE)
    assert (message.exchange, message.routing_key) == (EVENTS, "tool.executed.v1")


@pytest.mark.parametrize(("user", "exchange", "key", "queue"), ROUTES)
async def test_message_rejected_by_the_broker_is_dead_lettered(
    broker: Broker, user: str, exchange: str, key: str, queue: str
) -> None:
    """It goes to the dead-letter queue of its queue, although its routing key is its type."""
    async with broker.channel(user) as channel:
        await publish(channel, exchange, key)

    async with broker.channel("admin") as channel:
        await (await arrival(channel, queue)).reject(requeue=False)
        message = await arrival(channel, dead_letter_queue(queue))
    assert (message.exchange, message.routing_key) == (DEAD, queue)


async def test_operator_reads_a_dead_letter_and_moves_it_back(broker: Broker) -> None:
    """Thirty reads lose nothing, and *Move messages* of the management UI moves it unchanged."""
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)
    async with broker.channel("usage-ingest") as channel:
        await publish(channel, DEAD, TOOL_EXECUTED_QUEUE, headers={"nexus-reason": "poison"})

    for _ in range(30):
        read = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        seen = await broker.ask("operator", "POST", f"queues/{{vhost}}/{dead}/get", **read)
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


async def test_operator_changes_only_policies_and_shovels(broker: Broker) -> None:
    """An operator neither declares, deletes nor publishes, and is no administrator."""
    with pytest.raises(aiohttp.ClientResponseError, match=r"40[13]"):
        await broker.ask("operator", "DELETE", f"queues/{{vhost}}/{USER_CREATED_QUEUE}")
    with pytest.raises(aiohttp.ClientResponseError, match=r"40[13]"):
        await broker.ask("operator", "PUT", "queues/{vhost}/theirs", durable=True)
    with pytest.raises(aiohttp.ClientResponseError, match="401"):
        await broker.ask("operator", "GET", "users")
