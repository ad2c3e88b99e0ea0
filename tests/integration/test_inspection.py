"""What ``check`` finds at the broker with a service's login, and that it changes nothing."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aio_pika
import pytest
from yarl import URL

from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_broker_admin.depths import vhost_of
from nexus_broker_admin.inspection import broker_fault, topology_fault
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import (
    DEAD,
    INTERNAL,
    MAX_MESSAGE_BYTES,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    rights_of,
)
from support.commands import in_a_pipe, on_a_terminal
from support.leak_check import leaks, secrets_in
from support.vhost import Vhost
from support.waiting import eventually

INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"
TAP = "tap"

Clone = Callable[[str], Awaitable[str]]


@pytest.fixture
async def full_size(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost exactly as described, with the tiers' real waits."""
    fresh = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    await fresh.create(tier_scale=1.0)
    yield fresh
    await fresh.delete()


async def faults(vhost: Vhost, service: str) -> list[str]:
    """Return the faults that a check with the service's login finds."""
    found = await broker_fault(vhost.url(service), rights_of(service))
    return found.splitlines() if found else []


async def drift(vhost: Vhost) -> list[str]:
    """Return how a vhost differs from its description."""
    found = await topology_fault(vhost.management_url, vhost=vhost.name)
    return found.splitlines() if found else []


async def permit(vhost: Vhost, user: str, **changes: Any) -> None:
    """Change the permissions of a user."""
    path = f"permissions/{{vhost}}/{user}"
    body = {"configure": "^$", "write": ".*", "read": ".*", **changes}
    await vhost.ask("PUT", path, body)


async def tap(vhost: Vhost) -> None:
    """Bind one more queue to every exchange that services publish to, for all routing keys."""
    async with vhost.channel() as channel:
        queue = await channel.declare_queue(TAP, durable=True)
        for exchange in (INTERNAL, DEAD, *(tier.name for tier in TIERS)):
            await queue.bind(exchange, "#")


@pytest.mark.parametrize("service", [INGEST, REPORTER, PROVISIONER])
async def test_correct_broker_has_no_faults_and_gets_no_message(vhost: Vhost, service: str) -> None:
    """Permissions are tried with the real routing keys, in transactions never committed."""
    await tap(vhost)

    assert await faults(vhost, service) == []

    assert await vhost.depth(TAP) == 0
    for queue in rights_of(service).queues:
        assert await vhost.depth(queue) == 0


async def test_waiting_messages_are_not_delivered(vhost: Vhost) -> None:
    """They are not fetched, not requeued, and not counted as delivered."""
    await vhost.publish_raw(b"{}", TOOL_EXECUTED_QUEUE, exchange="")

    assert await faults(vhost, INGEST) == []

    message = await vhost.take(TOOL_EXECUTED_QUEUE)
    assert not message.redelivered
    assert "x-delivery-count" not in message.headers


async def test_single_active_consumer_stays_active(vhost: Vhost) -> None:
    """The check of a second process takes no message from the first."""
    got: list[bytes] = []

    async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        got.append(message.body)
        await message.ack()

    async with vhost.channel(REPORTER) as channel:
        queue = await channel.get_queue(USAGE_RECORDED_QUEUE)
        await queue.consume(keep)

        assert await faults(vhost, REPORTER) == []
        await vhost.publish_raw(b"after", USAGE_RECORDED_QUEUE, exchange="")

        async def arrived() -> list[bytes]:
            return got

        await eventually(arrived, lambda bodies: bodies == [b"after"])


async def test_all_missing_permissions_are_named(vhost: Vhost) -> None:
    """One exchange that may not be written, one queue that may not be read."""
    queues = rights_of(INGEST).queues
    allowed = "|".join(each for each in queues if each != USAGE_OUTCOMES_QUEUE)
    await permit(vhost, INGEST, write="^(internal|notices|retry.*)$", read=f"^({allowed})$")

    found = await faults(vhost, INGEST)

    advice = "run nexus-topology apply"
    assert found == [
        f"queue {USAGE_OUTCOMES_QUEUE}: no permission to read it: {advice}",
        *(f"exchange {DEAD}: no permission to publish {queue}: {advice}" for queue in queues),
    ]


async def test_missing_topic_permission_is_named_with_its_key(vhost: Vhost) -> None:
    """A user that may write an exchange may still lack the permission for a routing key."""
    rest = r"^(meter\.errors_found|usage\.(counted|rejected_later|reported))\.v[0-9]+$"
    other = {"exchange": INTERNAL, "write": rest, "read": "^$"}
    await vhost.ask("PUT", f"topic-permissions/{{vhost}}/{REPORTER}", other)

    assert await faults(vhost, REPORTER) == [
        f"exchange {INTERNAL}: no permission to publish usage.rejected.v1: run nexus-topology apply"
    ]


async def test_all_missing_queues_and_exchanges_are_named(vhost: Vhost) -> None:
    """One check names all of them."""
    await vhost.ask("DELETE", f"queues/{{vhost}}/{TOOL_EXECUTED_QUEUE}")
    await vhost.ask("DELETE", f"exchanges/{{vhost}}/{TIERS[1].name}")

    assert await faults(vhost, INGEST) == [
        f"queue {TOOL_EXECUTED_QUEUE} is missing: run nexus-topology apply",
        f"exchange {TIERS[1].name} is missing: run nexus-topology apply",
    ]


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (MAX_MESSAGE_BYTES // 2, f"takes messages of more than {MAX_MESSAGE_BYTES // 2} bytes"),
        (MAX_MESSAGE_BYTES * 2, f"takes messages of {MAX_MESSAGE_BYTES} bytes at most"),
    ],
)
async def test_other_limit_of_message_size_is_named(vhost: Vhost, wanted: int, fault: str) -> None:
    """Too high, as the broker's default is, or too low; with the line for rabbitmq.conf."""
    found = await broker_fault(vhost.url(INGEST), rights_of(INGEST), message_bytes=wanted)

    assert found == f"the broker {fault}: set max_message_size = {wanted} in its rabbitmq.conf"


async def test_wrong_password_and_unreachable_broker_differ(vhost: Vhost) -> None:
    """The first is corrected in the settings; the second may end by itself."""
    url = vhost.url(INGEST)
    refused = await broker_fault(url.replace(vhost.password, "wrong"), rights_of(INGEST))
    away = await broker_fault(f"amqp://{INGEST}:x@127.0.0.1:1/{vhost.name}", rights_of(INGEST))

    elsewhere = await broker_fault(vhost.broker.amqp_url(INGEST, vhost.password), rights_of(INGEST))

    assert refused == "the login of AMQP_URL is refused: its user or password is wrong"
    assert elsewhere is not None
    assert elsewhere.startswith("the vhost of AMQP_URL is missing or not its user's")
    assert away is not None
    assert away.startswith("not reachable: ")


async def test_broker_as_described_has_no_drift_with_any_passwords(
    full_size: Vhost,
) -> None:
    """A service knows no password, so none is compared; queues of others are ignored."""
    async with full_size.channel() as channel:
        await channel.declare_queue("foreign", durable=True)

    assert await drift(full_size) == []


async def test_each_difference_is_named(full_size: Vhost) -> None:
    """A policy, a permission and a binding that are not as described: three lines."""
    policy = f"policies/{{vhost}}/nexus.{TOOL_EXECUTED_QUEUE}"
    await full_size.ask("DELETE", policy)
    await permit(full_size, INGEST, write=".*")
    await full_size.ask(
        "DELETE", f"bindings/{{vhost}}/e/{DEAD}/q/{TOOL_EXECUTED_QUEUE}.dlq/{TOOL_EXECUTED_QUEUE}"
    )

    found = await drift(full_size)

    assert len(found) == 3
    assert f"missing policy nexus.{TOOL_EXECUTED_QUEUE}" in found
    assert any(line.startswith(f"missing binding {DEAD} queue") for line in found)
    assert any(line.startswith(f"different permission {INGEST}: write is .*") for line in found)


async def test_policy_of_others_that_displaces_ours_is_named(full_size: Vhost) -> None:
    """Our policy remains unchanged on the broker and is not in force."""
    theirs = {"pattern": "^retry", "priority": 50, "definition": {"max-length": 9}}
    await full_size.ask("PUT", "policies/{vhost}/theirs", theirs | {"apply-to": "all"})

    found = await drift(full_size)

    assert len(found) == len(TIERS)
    assert found[0] == (
        f"different settings of queue {TIERS[0].name}: max-length is 9, should be absent; in force:"
        " policy theirs (priority 50); remove what is not described there, narrow its pattern,"
        " or lower its priority"
    )


async def test_refused_administrator_is_named(vhost: Vhost) -> None:
    """The text says what to do and holds no password."""
    wrong = vhost.management_url.replace(vhost.broker.admin.password, "wr0ng")

    found = await topology_fault(wrong, vhost=vhost.name)

    assert found == (
        "the broker refused the user of MANAGEMENT_URL: name an administrator and its password"
    )


async def test_check_names_all_faults_together(
    full_size: Vhost, clone: Clone, postgres: PostgresServer
) -> None:
    """A setting, a permission, a policy and the database's revision: one run names all four."""
    database = await clone("usage_ingest")
    run_sql(as_superuser(postgres, database), "UPDATE alembic_version SET version_num = 'newer'")
    await full_size.ask("DELETE", f"policies/{{vhost}}/nexus.{TOOL_EXECUTED_QUEUE}")
    await permit(full_size, INGEST, write=f"^({INTERNAL}|retry.*)$")
    settings = {
        "AMQP_URL": full_size.url(INGEST),
        "DATABASE_URL": database,
        "MANAGEMENT_URL": full_size.management_url,
        "REPORT_WINDOW_SECONDS": "7",
    }

    piped = await in_a_pipe("usage_ingest", "check", **settings)
    seen = await on_a_terminal("usage_ingest", "check", **settings)

    lines = piped.raw.splitlines()
    assert piped.code == seen.code == 2
    assert any(line.startswith("settings: REPORT_WINDOW_SECONDS: must be 0") for line in lines)
    assert any(line.startswith(f"broker: exchange {DEAD}: no permission") for line in lines)
    assert f"topology: missing policy nexus.{TOOL_EXECUTED_QUEUE}" in lines
    assert any(line.startswith("database: the database is at revision newer") for line in lines)
    assert "✗ wrong" in seen.text
    assert f"missing policy nexus.{TOOL_EXECUTED_QUEUE}" in seen.text
    hidden = secrets_in(settings)
    assert leaks({"pipe": piped.raw + piped.errors, "terminal": seen.text}, hidden) == []


async def test_topology_check_says_the_same_on_a_terminal_and_in_a_pipe(
    full_size: Vhost,
) -> None:
    """Signs and colours appear on a terminal only; the exit code is 1 on a difference."""
    settings = {
        "MANAGEMENT_URL": full_size.management_url,
        "VHOST": full_size.name,
        **{
            user.password_setting: full_size.password
            for user in metering_topology(full_size.name).users
        },
    }
    correct = await in_a_pipe("nexus_broker_admin.cli", "check", **settings)
    await full_size.ask("DELETE", f"policies/{{vhost}}/nexus.{TOOL_EXECUTED_QUEUE}")

    piped = await in_a_pipe("nexus_broker_admin.cli", "check", **settings)
    seen = await on_a_terminal("nexus_broker_admin.cli", "check", **settings)

    assert (correct.code, correct.raw) == (0, "the broker is as described\n")
    assert (piped.code, piped.raw) == (1, f"missing policy nexus.{TOOL_EXECUTED_QUEUE}\n")
    assert (seen.code, seen.text) == (1, f"✗ missing policy nexus.{TOOL_EXECUTED_QUEUE}\n")


def as_superuser(postgres: PostgresServer, database_url: str) -> str:
    """Return the superuser's URL of a service's database."""
    return str(URL(postgres.superuser_url).with_path(URL(database_url).path))


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://u:p@h/metering", "metering"),
        ("amqps://u:p@h:5671/a%2Fb?cafile=x", "a/b"),
        ("amqp://u:p@h", "/"),
        ("amqp://u:p@h/", "/"),
    ],
)
def test_vhost_is_read_from_the_amqp_url(url: str, vhost: str) -> None:
    """So the vhost that the service uses is compared."""
    assert vhost_of(url) == vhost
