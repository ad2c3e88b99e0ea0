"""The running service: from ``user.created`` to ``customer.provisioned``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from prometheus_client import CollectorRegistry

from customer_provisioner.announcing import announced_customers
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import announcement
from customer_provisioner.relay import Relay
from customer_provisioner.storage.reader import ProfileReader
from local_stack.ports import free_ports
from local_stack.server_process import ServerProcess
from nexus_contracts import (
    CustomerProvisioned,
    Event,
    UserCreated,
    UserCreatedV2,
    UserUpdated,
    read_event,
)
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    EVENTS,
    STRIPE_CHANGED_QUEUE,
    TIERS,
    USER_CREATED_QUEUE,
    USER_UPDATED_QUEUE,
    dead_letter_queue,
)
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import API_KEY, Bench, Spawn, Stripe, created, start, user


async def announcements(vhost: Vhost, users: int = 1) -> list[Event[CustomerProvisioned]]:
    """Wait until at least so many users were announced; return the first announcement of each."""

    async def first_of_each() -> list[Event[CustomerProvisioned]]:
        if await vhost.depth(CUSTOMER_PROVISIONED_QUEUE) < users:
            return []  # each peek counts as a delivery, and the queue limits those
        messages = await vhost.peek(CUSTOMER_PROVISIONED_QUEUE)
        events = [read_event(each.body, [CustomerProvisioned]) for each in messages]
        return list({event.data.user_id: event for event in reversed(events)}.values())

    await eventually(
        lambda: vhost.depth(CUSTOMER_PROVISIONED_QUEUE), lambda depth: depth >= users, within=60
    )
    return await eventually(
        first_of_each, lambda events: len(events) >= users, within=60, every=4.0
    )


async def settled(vhost: Vhost) -> None:
    """Wait until no message of the service is in a queue, unacknowledged ones included."""
    queues = (USER_CREATED_QUEUE, STRIPE_CHANGED_QUEUE, *(tier.name for tier in TIERS))

    async def left() -> int:
        listed = await vhost.ask(
            "GET", "queues/{vhost}?disable_stats=true&enable_queue_totals=true"
        )
        return sum(each.get("messages", 0) for each in listed if each["name"] in queues)

    await eventually(left, lambda messages: messages == 0, within=60, every=0.2)


async def metric(service: ServerProcess, line: str) -> float:
    """Return one metric's value."""
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    (value,) = [each.rpartition(" ")[2] for each in lines if each.startswith(f"{line} ")]
    return float(value)


async def test_a_new_user_becomes_a_customer_that_is_announced(
    vhost: Vhost, stripe: Stripe, service: ServerProcess
) -> None:
    """One event in, one customer at Stripe, one announcement out."""
    data = user(name="Ada")
    await start(service)

    await vhost.publish(created(data))

    (event,) = await announcements(vhost)
    (customer,) = stripe.customers(data.user_id)
    assert event.data.user_id == data.user_id
    assert event.data.stripe_customer_id == customer["id"]
    assert event.data.generation == 1
    await settled(vhost)


async def test_two_processes_and_duplicates_make_one_customer_each(
    vhost: Vhost, stripe: Stripe, service: ServerProcess, spawn: Spawn, environment: dict[str, str]
) -> None:
    """Redelivery, concurrency and lost answers together: one customer, announced as one."""
    (port,) = free_ports(None)
    other = spawn({**environment, "HTTP_PORT": str(port)})
    new_users = [user() for _ in range(15)]
    stripe.set_options(call_seconds=0.05)
    stripe.inject("reset", when="after", times=5)
    stripe.inject("server_error", when="after", times=3)
    await asyncio.gather(start(service), start(other))

    await vhost.publish(*(created(data) for data in new_users for _ in range(2)))
    await settled(vhost)

    announced = {
        each.data.user_id: each.data for each in await announcements(vhost, len(new_users))
    }
    for data in new_users:
        (customer,) = stripe.customers(data.user_id)
        assert announced[data.user_id].stripe_customer_id == customer["id"]
    assert await vhost.dead_letters(USER_CREATED_QUEUE) == []


async def test_a_killed_service_leaves_one_customer_for_each_user(
    vhost: Vhost, stripe: Stripe, service: ServerProcess
) -> None:
    """Killed during its calls and started again, it finishes each of them once."""
    new_users = [user() for _ in range(10)]
    stripe.set_options(call_seconds=0.3)
    await start(service)
    await vhost.publish(*(created(data) for data in new_users))
    await stripe.wait_for("POST", 5)

    service.kill()
    await start(service)
    await settled(vhost)

    announced = {each.data.user_id for each in await announcements(vhost, len(new_users))}
    assert announced == {data.user_id for data in new_users}
    assert [len(stripe.customers(data.user_id)) for data in new_users] == [1] * len(new_users)


async def test_sigterm_finishes_the_call_in_progress(
    vhost: Vhost, stripe: Stripe, service: ServerProcess, database: Database
) -> None:
    """The answer is stored and the message acked before the process ends."""
    data = user()
    stripe.set_options(call_seconds=1.0)
    await start(service)
    await vhost.publish(created(data))
    await stripe.wait_for("POST")

    service.terminate()
    assert await asyncio.to_thread(service.wait_for_exit, 20)

    (customer,) = stripe.customers(data.user_id)
    profile = await ProfileReader(database).find(data.user_id)
    assert profile is not None
    assert profile.stripe_customer_id == customer["id"]
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_a_customer_stored_before_a_crash_is_announced_after_it(
    vhost: Vhost, service: ServerProcess, bench: Bench, database: Database
) -> None:
    """The relay works from the row and needs no message."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)

    await start(service)

    (event,) = await announcements(vhost)
    profile = await ProfileReader(database).find(data.user_id)
    assert profile is not None
    assert event.data.user_id == data.user_id
    assert event == announcement(profile)


async def test_an_unconfirmed_announcement_is_not_marked(
    vhost: Vhost, bench: Bench, database: Database
) -> None:
    """Without the queue the publish is returned, and the row stays unannounced."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    publisher = await Publisher.connect(vhost.url("customer-provisioner"), name="test")
    facts, metrics = announced_customers(database), Metrics(CollectorRegistry())
    await vhost.ask("DELETE", f"queues/{{vhost}}/{CUSTOMER_PROVISIONED_QUEUE}")

    await Relay(facts, publisher, metrics, utc_now).publish_unannounced()

    (unannounced,) = await facts.unannounced(10, ())
    assert unannounced.user_id == data.user_id
    await publisher.close()


async def test_a_refused_user_is_dead_lettered_and_can_be_corrected(
    vhost: Vhost, stripe: Stripe, service: ServerProcess, bench: Bench
) -> None:
    """The dead letter has the reason; moved back after a correction, it is processed."""
    wrong = UserCreatedV2.model_construct(user_id=user().user_id, email="bad address")
    right = UserCreated(user_id=wrong.user_id, email="ada@example.com")
    await bench.keep(wrong)
    await start(service)
    await vhost.publish(created(right))
    (message,) = await eventually(
        lambda: vhost.dead_letters(USER_CREATED_QUEUE), lambda messages: len(messages) == 1
    )

    await vhost.move(dead_letter_queue(USER_CREATED_QUEUE), USER_CREATED_QUEUE)

    (event,) = await announcements(vhost)
    (customer,) = stripe.customers(right.user_id)
    assert message.headers["nexus-reason"] == "refused_by_stripe"
    assert "param email" in str(message.headers["nexus-error"])
    assert "bad address" not in str(message.headers)
    assert customer["email"] == "ada@example.com"
    assert event.data.stripe_customer_id == customer["id"]


async def test_links_and_changes_come_through_their_queues(
    vhost: Vhost, stripe: Stripe, service: ServerProcess
) -> None:
    """A change before its user, a link, a foreign one, a duplicate, and another for the user."""
    account = stripe.account
    own = account.customers.create({"email": "own@example.com"}, account.clock.now())["id"]
    linked = UserCreatedV2(user_id=user().user_id, stripe_customer_id=own)
    foreign = UserCreatedV2(user_id=user().user_id, stripe_customer_id="cus_unknown")
    change = UserUpdated(user_id=linked.user_id, email="new@example.com")
    await vhost.publish(created(change), exchange=EVENTS)
    await start(service)
    await eventually(lambda: vhost.depth(USER_UPDATED_QUEUE), lambda depth: depth == 0)

    await vhost.publish(created(linked), created(foreign), exchange=EVENTS)

    (event,) = await announcements(vhost)
    assert event.data.stripe_customer_id == own
    other = linked.model_copy(update={"stripe_customer_id": "cus_other"})
    await vhost.publish(created(linked), created(other), exchange=EVENTS)
    await settled(vhost)
    messages = await eventually(
        lambda: vhost.dead_letters(USER_CREATED_QUEUE), lambda found: len(found) == 2
    )
    assert {each.headers["nexus-reason"]: each.headers["nexus-error"] for each in messages} == {
        "foreign_customer": "LinkRefusedError: Stripe has no such customer",
        "other_customer": "LinkRefusedError: the user has another customer",
    }

    async def address() -> Any:
        return stripe.customers(linked.user_id)[0]["email"]

    await eventually(address, lambda email: email == "new@example.com", within=30)
    assert len(stripe.requests("POST", f"/v1/customers/{own}")) == 2


async def test_an_unreadable_message_is_dead_lettered_alone(
    vhost: Vhost, service: ServerProcess
) -> None:
    """The user beside it gets a customer."""
    data = user()
    await start(service)

    await vhost.publish_raw(b"rubbish", UserCreated.TYPE)
    await vhost.publish(created(data))

    (event,) = await announcements(vhost)
    (message,) = await eventually(
        lambda: vhost.dead_letters(USER_CREATED_QUEUE), lambda messages: len(messages) == 1
    )
    assert event.data.user_id == data.user_id
    assert message.body == b"rubbish"
    assert message.headers["nexus-reason"] == "unreadable"


async def test_a_revoked_key_dead_letters_no_message(
    vhost: Vhost, stripe: Stripe, service: ServerProcess
) -> None:
    """Messages wait until Stripe accepts the key."""
    new_users = [user() for _ in range(3)]
    await start(service)
    stripe.account.keys.put(DEFAULT_KEY, KeyState.REVOKED)
    await vhost.publish(*(created(data) for data in new_users))
    await stripe.wait_for("POST")

    stripe.account.keys.put(DEFAULT_KEY, KeyState.VALID)

    announced = {each.data.user_id for each in await announcements(vhost, len(new_users))}
    assert announced == {data.user_id for data in new_users}
    assert await vhost.dead_letters(USER_CREATED_QUEUE) == []


async def test_consuming_goes_on_after_connections_were_closed(
    vhost: Vhost, service: ServerProcess
) -> None:
    """No restart is needed after the broker closes every connection of the service."""
    data = user()
    await start(service)

    async def connections() -> list[Any]:
        return list(await vhost.ask("GET", "vhosts/{vhost}/connections"))

    for each in await eventually(connections, lambda found: len(found) >= 2):
        await vhost.ask("DELETE", f"connections/{quote(each['name'], safe='')}")
    await vhost.publish(created(data))

    (event,) = await announcements(vhost)
    assert event.data.user_id == data.user_id


async def test_log_and_metrics_have_no_address(
    vhost: Vhost, service: ServerProcess, stripe: Stripe
) -> None:
    """A second address is counted, and logged by user id."""
    first = user("first.address@example.com")
    second = UserCreated(user_id=first.user_id, email="second.address@example.com")
    await start(service)
    stripe.inject("rate_limited")
    await vhost.publish(created(first))
    await announcements(vhost)

    await vhost.publish(created(second))
    await eventually(
        lambda: metric(service, "customer_provisioner_ignored_addresses_total"), lambda n: n == 1
    )
    await settled(vhost)

    written = await asyncio.to_thread(Path(service.log).read_text, encoding="utf-8")
    assert str(first.user_id) in written
    assert "address@example.com" not in written
    assert len(stripe.customers(first.user_id)) == 1


@asynccontextmanager
async def api_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session of a client that has the key."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


async def test_a_client_gets_its_customer_in_one_request(
    stripe: Stripe, service: ServerProcess
) -> None:
    """Each POST returns the same customer, and GET too."""
    data = user()
    body = data.model_dump(mode="json")
    await start(service)

    async with api_session() as session:
        async with session.post(f"{service.url}/v1/customers", json=body) as answer:
            first, status = await answer.json(), answer.status
        async with session.post(f"{service.url}/v1/customers", json=body) as answer:
            again = await answer.json()
        async with session.get(f"{service.url}/v1/customers/{data.user_id}") as answer:
            shown = await answer.json()

    (customer,) = stripe.customers(data.user_id)
    assert status == 200
    assert first["stripe_customer_id"] == customer["id"]
    assert first == again == shown
    assert data.email not in str(first)


async def test_sigterm_ends_a_service_that_waits_for_its_broker(
    spawn: Spawn, environment: dict[str, str]
) -> None:
    """It logs that it waits, and ends at once."""
    (unused,) = free_ports(None)
    waiting = spawn({**environment, "AMQP_URL": f"amqp://a:b@127.0.0.1:{unused}/none"})
    waiting.launch()

    async def log() -> str:
        return await asyncio.to_thread(_text, waiting.log)

    await eventually(log, lambda written: "waiting_at_start" in written)
    waiting.terminate()

    assert await asyncio.to_thread(waiting.wait_for_exit, 10)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
