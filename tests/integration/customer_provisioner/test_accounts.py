"""Accounts of organisations, and who pays for whom: over HTTP and as commands."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.announcing import announced_assignments
from customer_provisioner.assignments import Assignment
from customer_provisioner.http_accounts import AccountRoutes
from customer_provisioner.http_requests import Admission
from customer_provisioner.relay import Relay
from customer_provisioner.storage.assignments import AssignmentStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.sweep import sweep
from local_stack.ports import LOOPBACK, free_ports
from nexus_contracts import UserAssigned, read_event
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import CUSTOMER_PROVISIONED_QUEUE, USER_ASSIGNED_QUEUE
from nexus_service.api_keys import read_api_keys
from nexus_service.http import serving
from nexus_service.rate_limit import RateLimiter
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import API_KEY, API_KEYS, Bench, Spawn, start, user
from .test_commands import Command
from .test_http import Caller

ASSIGNING_KEY = "a key of the platform's backend"
ANY_KEY = "a key for any event"


def entry(key: str, types: str) -> str:
    """Return a key's entry in ``API_KEYS``."""
    return f"team:{sha256(key.encode()).hexdigest()}:platform:{types}"


@pytest.fixture
async def caller(
    bench: Bench, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Caller]:
    """Yield a client of the API while no service is running."""
    monkeypatch.setattr("customer_provisioner.http_requests.WAIT_SECONDS", 0.1)
    configured = f"{API_KEYS},{entry(ASSIGNING_KEY, 'user.assigned')},{entry(ANY_KEY, '*')}"
    keys: Any = read_api_keys(configured)
    routes = AccountRoutes(
        Admission(keys, RateLimiter(1000.0, 1000.0, lambda: 0.0)),
        ProfileReader(database),
        bench.profiles,
        AssignmentStore(database),
        wake_sweep=lambda: None,
        wake_relay=lambda: None,
        now=bench.clock,
    ).routes()
    (port,) = free_ports(None)
    async with serving(LOOPBACK, port, CollectorRegistry(), health={}, readiness={}, routes=routes):
        yield Caller(f"http://{LOOPBACK}:{port}")


async def organisation(caller: Caller, account_id: UUID) -> tuple[int, Any]:
    """Create an account over HTTP."""
    body = f'{{"account_id": "{account_id}", "name": "Acme", "email": "pay@acme.example"}}'
    return await caller.request("POST", "/v1/accounts", body)


async def assign(
    caller: Caller, user_id: UUID, account_id: UUID, since: str = "", key: str = ASSIGNING_KEY
) -> tuple[int, Any]:
    """Assign a user over HTTP."""
    more = f', "since": "{since}"' if since else ""
    body = f'{{"user_id": "{user_id}", "account_id": "{account_id}"{more}}}'
    return await caller.request("POST", "/v1/assignments", body, key=key)


async def test_an_organisation_gets_one_customer_as_a_user_does(
    caller: Caller, bench: Bench, database: Database
) -> None:
    """By the sweep, at once; a repeated request is the same account."""
    account_id = uuid4()

    first = await organisation(caller, account_id)
    await sweep(ProfileReader(database), bench.provisioner, bench.metrics, bench.clock)
    second = await organisation(caller, account_id)

    (customer,) = bench.stripe.customers(account_id)
    assert first == (202, {"account_id": str(account_id), "state": "provisioning"})
    assert second[0] == 200
    assert second[1]["stripe_customer_id"] == customer["id"]
    assert (customer["name"], customer["email"]) == ("Acme", "pay@acme.example")


async def test_an_id_of_a_user_is_no_organisation(caller: Caller, bench: Bench) -> None:
    """Its runs would be the organisation's."""
    data = user()
    await bench.keep(data)

    status, answer = await organisation(caller, data.user_id)

    assert (status, answer["code"]) == (409, "id_taken")


async def test_a_user_is_assigned_and_announced_until_confirmed(
    caller: Caller, bench: Bench, database: Database, publisher: Publisher, vhost: Vhost
) -> None:
    """To an account that exists; a repetition makes no other assignment."""
    account_id, user_id = uuid4(), uuid4()
    await organisation(caller, account_id)
    since = "2026-03-01T00:00:00+00:00"

    first = await assign(caller, user_id, account_id, since)
    again = await assign(caller, user_id, account_id, since)
    relay = Relay(announced_assignments(database), publisher, bench.metrics, bench.clock)
    await relay.publish_unannounced()
    await relay.publish_unannounced()

    assert first == (
        201,
        {"user_id": str(user_id), "account_id": str(account_id), "since": since},
    )
    assert again == (200, first[1])
    (message,) = await vhost.peek(USER_ASSIGNED_QUEUE)
    event = read_event(message.body, [UserAssigned])
    assert (event.data.user_id, event.data.account_id) == (user_id, account_id)
    assert event.data.since.isoformat() == since
    assert await AssignmentStore(database).members(account_id, bench.clock()) == [user_id]


async def test_an_unconfirmed_assignment_stays_unannounced(
    caller: Caller, bench: Bench, database: Database, publisher: Publisher, vhost: Vhost
) -> None:
    """The broker returned it, since there is no queue."""
    user_id = uuid4()
    await organisation(caller, account_id := uuid4())
    await assign(caller, user_id, account_id)
    await vhost.ask("DELETE", f"queues/{{vhost}}/{USER_ASSIGNED_QUEUE}")
    facts = announced_assignments(database)

    await Relay(facts, publisher, bench.metrics, bench.clock).publish_unannounced()

    assert [each.user_id for each in await facts.unannounced(10, ())] == [user_id]


@pytest.mark.parametrize("key", [API_KEY, ANY_KEY])
async def test_a_key_assigns_only_by_that_right(
    caller: Caller, database: Database, key: str
) -> None:
    """A key for any event may publish tool runs, and so may not say who pays for them."""
    user_id = uuid4()

    status, answer = await assign(caller, user_id, user_id, key=key)

    assert (status, answer["code"]) == (403, "forbidden")
    assert await AssignmentStore(database).of_user(user_id) == []


async def test_an_unknown_account_and_an_organisation_are_not_assigned(caller: Caller) -> None:
    """Usage would wait for ever, or an organisation would pay for another."""
    await organisation(caller, account_id := uuid4())

    unknown = await assign(caller, uuid4(), uuid4())
    nested = await assign(caller, account_id, uuid4())

    assert [unknown[0], unknown[1]["code"]] == [409, "not_assignable"]
    assert [nested[0], nested[1]["code"]] == [409, "not_assignable"]


async def test_a_wrong_field_is_named(caller: Caller) -> None:
    """Without its value."""
    status, answer = await caller.request(
        "POST", "/v1/assignments", '{"user_id": "no id", "since": "soon"}', key=ASSIGNING_KEY
    )

    assert status == 400
    assert {each["field"] for each in answer["errors"]} == {"user_id", "account_id", "since"}
    assert "no id" not in str(answer)


async def test_assignments_at_once_have_different_revisions(
    caller: Caller, database: Database
) -> None:
    """Each is decided with all before it; the last one made holds from a common time."""
    user_id, since = uuid4(), "2026-03-01T00:00:00Z"
    accounts = [uuid4() for _ in range(6)]
    for each in accounts:
        await organisation(caller, each)

    await asyncio.gather(*(assign(caller, user_id, each, since) for each in accounts))

    history = await AssignmentStore(database).of_user(user_id)
    assert len({each.revision for each in history}) == len(accounts)


async def test_commands_create_assign_and_show(environment: dict[str, str]) -> None:
    """An operator does the same without HTTP; explain says who pays."""
    command, account_id, user_id = Command(environment), str(uuid4()), str(uuid4())

    made = await command.run("accounts", "create", "Acme", "--id", account_id)
    wrong = await command.run("accounts", "create", "Acme", "--email", "nobody")
    moved = await command.run("assign", user_id, account_id, "--from", "2026-03-01T00:00:00Z")
    unknown = await command.run("assign", user_id, str(uuid4()))
    listed = await command.run("accounts", "list")
    shown = await command.run("accounts", "show", account_id)
    explained = await command.run("explain", user_id)

    assert made[:2] == (
        0,
        f"account {account_id}: its customer is created or linked by the running service\n",
    )
    assert wrong[0] == 1
    assert "nobody" not in wrong[2]
    since = "from 2026-03-01T00:00:00Z on"
    assert moved[:2] == (
        0,
        f"{account_id} pays for {user_id} {since}; the running service announces it\n",
    )
    assert (unknown[0], "no such account" in unknown[2]) == (1, True)
    assert listed[:2] == (0, f"{account_id} provisioning - Acme\n")
    assert shown[1].splitlines()[-2:] == ["assigned users: 1", f"  {user_id}"]
    assert f"account: {account_id}" in explained[1]
    assert f"assigned to {account_id} from 2026-03-01T00:00:00Z on" in explained[1]


async def test_assignments_are_announced_again_since_a_time(
    caller: Caller, bench: Bench, database: Database
) -> None:
    """Page by page, for a ledger that was restored from an older backup."""
    await organisation(caller, account_id := uuid4())
    users = sorted(uuid4() for _ in range(5))
    for each in users:
        await assign(caller, each, account_id)
    store, start = AssignmentStore(database), bench.clock()
    await store.mark_announced(await store.unannounced(10), start)

    read: list[UUID] = []
    last: Assignment | None = None
    while page := await store.announced_since(start, last, 2):
        read += [each.user_id for each in page]
        last = page[-1]
    bench.advance(hours=1)

    assert read == users
    assert await store.announced_since(bench.clock(), None, 2) == []


async def test_a_running_service_creates_an_account_and_assigns_to_it(
    spawn: Spawn, environment: dict[str, str], bench: Bench, vhost: Vhost
) -> None:
    """The answer has the customer, and both are announced at once."""
    keys = f"{API_KEYS},{entry(ASSIGNING_KEY, 'user.assigned')}"
    service = spawn({**environment, "API_KEYS": keys})
    await start(service)
    client, account_id, user_id = Caller(service.url), uuid4(), uuid4()

    status, answer = await organisation(client, account_id)
    assigned, _ = await assign(client, user_id, account_id)

    (customer,) = bench.stripe.customers(account_id)
    assert (status, answer["stripe_customer_id"], assigned) == (200, customer["id"], 201)
    await eventually(lambda: vhost.depth(USER_ASSIGNED_QUEUE), bool)
    await eventually(lambda: vhost.depth(CUSTOMER_PROVISIONED_QUEUE), bool)
