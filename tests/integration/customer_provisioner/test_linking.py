"""A user who has a customer at Stripe already is linked to it, and never gets a second one."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from customer_provisioner.linking import LinkFault, LinkRefusedError
from customer_provisioner.links import link
from customer_provisioner.profile import Link
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.stripe.responses import KeySpentError
from customer_provisioner.sweep import sweep
from nexus_contracts import UserCreatedV2
from nexus_contracts.user_created import newest
from nexus_database import Database
from nexus_messaging.errors import TransientError
from nexus_messaging.reasons import Reason

from .conftest import Bench, profile_of, steps_of, user


def existing_customer(bench: Bench, marked_for: str | None = None) -> str:
    """Create a customer at Stripe that this service did not make; return its id."""
    metadata = {} if marked_for is None else {"user_id": marked_for}
    body = {"email": "own@example.com", "name": "Own", "metadata": metadata}
    account = bench.stripe.account
    return str(account.customers.create(body, account.clock.now())["id"])


def linked_user(customer_id: str) -> UserCreatedV2:
    """Return a user who has a customer at Stripe already."""
    user_id = uuid4()
    return UserCreatedV2(
        user_id=user_id, email=f"{user_id}@example.com", stripe_customer_id=customer_id
    )


async def test_an_existing_customer_is_linked_and_marked(bench: Bench, database: Database) -> None:
    """It keeps its address and name, and none is created."""
    customer_id = existing_customer(bench)
    data = linked_user(customer_id)
    await bench.keep(data)

    assert await bench.provisioner.provision(data.user_id) == customer_id

    (customer,) = bench.stripe.customers(data.user_id)
    profile = await profile_of(database, data)
    assert (customer["id"], customer["email"], customer["name"]) == (
        customer_id,
        "own@example.com",
        "Own",
    )
    assert (profile.stripe_customer_id, profile.link_to) == (customer_id, None)
    assert await steps_of(database, data) == ["kept", "linked"]
    assert bench.stripe.requests("POST") == []


@pytest.mark.parametrize(
    "fault", [each for each in LinkFault if each is not LinkFault.OTHER_CUSTOMER]
)
async def test_a_foreign_customer_is_refused_and_no_other_is_created(
    bench: Bench, database: Database, fault: LinkFault
) -> None:
    """The reason is in the error and in the profile; nothing changes at Stripe."""
    customer_id = existing_customer(bench)
    match fault:
        case LinkFault.NOT_FOUND:
            customer_id = "cus_unknown"
        case LinkFault.OTHER_MODE:
            customer_id = bench.stripe.account.customers.create_live()
        case LinkFault.DELETED:
            bench.stripe.delete(customer_id)
        case LinkFault.MARKED:
            customer_id = existing_customer(bench, str(uuid4()))
        case LinkFault.TAKEN:
            owner = linked_user(customer_id)
            await bench.keep(owner)
            await bench.provisioner.provision(owner.user_id)
    data = linked_user(customer_id)
    await bench.keep(data)

    with pytest.raises(LinkRefusedError) as refusal:
        await bench.provisioner.provision(data.user_id)

    profile = await profile_of(database, data)
    assert refusal.value.reason is Reason.FOREIGN_CUSTOMER
    assert str(refusal.value) == profile.refused_as == fault.value
    assert bench.stripe.customers(data.user_id) == []
    assert bench.stripe.requests("POST") == []
    bench.advance(hours=1)
    assert await ProfileReader(database).due(bench.clock(), 10) == []


async def test_a_refused_link_succeeds_once_its_cause_is_corrected(
    bench: Bench, database: Database
) -> None:
    """The operator removes the mark at Stripe and moves the dead letter back."""
    customer_id = existing_customer(bench, "someone else")
    data = linked_user(customer_id)
    await bench.keep(data)
    with pytest.raises(LinkRefusedError):
        await bench.provisioner.provision(data.user_id)
    account = bench.stripe.account
    account.customers.update(customer_id, {"metadata": {"user_id": ""}}, account.clock.now())

    await bench.keep(data)
    assert await bench.provisioner.provision(data.user_id) == customer_id

    assert (await profile_of(database, data)).refused_as is None


async def test_a_refused_customer_is_replaced_by_the_next(bench: Bench) -> None:
    """A corrected message names another customer."""
    data = linked_user("cus_unknown")
    await bench.keep(data)
    with pytest.raises(LinkRefusedError):
        await bench.provisioner.provision(data.user_id)
    right = data.model_copy(update={"stripe_customer_id": existing_customer(bench)})

    await bench.keep(right)

    assert await bench.provisioner.provision(data.user_id) == right.stripe_customer_id


@pytest.mark.parametrize("fault", ["reset", "html_503", "server_error", "rate_limited", "conflict"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_is_completed_after_any_lost_answer(
    bench: Bench, fault: str, when: str, method: str
) -> None:
    """Its retrieval or its update fails, before or after the effect."""
    customer_id = existing_customer(bench)
    data = linked_user(customer_id)
    await bench.keep(data)
    bench.stripe.inject(fault, when=when, method=method)

    assert await _provisioned(bench, data) == customer_id

    assert [each["fired"] for each in bench.stripe.account.faults.listed()] == [1]
    (customer,) = bench.stripe.customers(data.user_id)
    assert customer["id"] == customer_id
    assert bench.stripe.requests("POST") == []


@pytest.mark.parametrize("fault", ["reset", "server_error"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("hours", [0, 21])
async def test_a_link_resolves_an_open_attempt_first(
    bench: Bench, database: Database, fault: str, when: str, hours: int
) -> None:
    """If the open creation has made a customer, it stays; else none is made any more."""
    plain = user()
    customer_id = existing_customer(bench)
    data = UserCreatedV2(user_id=plain.user_id, stripe_customer_id=customer_id)
    await bench.keep(plain)
    bench.stripe.inject(fault, when=when)
    with pytest.raises(TransientError):
        await bench.provisioner.provision(plain.user_id)
    bench.advance(hours=hours)
    await bench.keep(data)

    got = await _provisioned(bench, data)

    made = bench.stripe.customers(data.user_id)
    assert [each["id"] for each in made] == [got]
    assert (got == customer_id) is (when == "before")
    assert (await profile_of(database, data)).stripe_customer_id == got
    assert len(bench.stripe.requests("POST")) == 1


async def test_a_creation_that_arrives_after_the_link_makes_no_customer(bench: Bench) -> None:
    """The link has used its idempotency key."""
    plain, customer_id = user(), existing_customer(bench)
    await bench.keep(plain)
    late = await bench.profiles.claim(plain.user_id, bench.clock())
    bench.advance(minutes=1)
    await bench.keep(UserCreatedV2(user_id=plain.user_id, stripe_customer_id=customer_id))
    assert await bench.provisioner.provision(plain.user_id) == customer_id

    with pytest.raises(KeySpentError):
        await bench.provisioner._stripe.create(late)  # type: ignore[arg-type]

    assert [each["id"] for each in bench.stripe.customers(plain.user_id)] == [customer_id]


async def stored(_bench: Bench, _data: UserCreatedV2) -> None:
    """Crash after the user was stored."""


async def claimed(bench: Bench, data: UserCreatedV2) -> None:
    """Crash after the claim, before the calls."""
    await bench.profiles.claim(data.user_id, bench.clock())


async def called(bench: Bench, data: UserCreatedV2) -> None:
    """Crash after the calls, before the customer was stored."""
    step = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(step, Link)
    await bench.provisioner._stripe.link(step)


@pytest.mark.parametrize("crash", [stored, claimed, called])
@pytest.mark.parametrize("hours", [0.1, 21])
async def test_the_sweep_finishes_a_link_that_a_crash_left(
    bench: Bench,
    database: Database,
    crash: Callable[[Bench, UserCreatedV2], Awaitable[None]],
    hours: float,
) -> None:
    """Also after the time in which the key may be repeated."""
    customer_id = existing_customer(bench)
    data = linked_user(customer_id)
    await bench.keep(data)
    await crash(bench, data)
    bench.advance(hours=hours)

    await sweep(ProfileReader(database), bench.provisioner, bench.metrics, bench.clock)

    assert [each["id"] for each in bench.stripe.customers(data.user_id)] == [customer_id]
    assert (await profile_of(database, data)).stripe_customer_id == customer_id


async def test_a_customer_of_an_earlier_generation_is_not_adopted(
    bench: Bench, database: Database
) -> None:
    """An operator has replaced it, and its mark at Stripe is still the user's."""
    data, customer_id = user(), existing_customer(bench)
    await bench.keep(data)
    former = await bench.provisioner.provision(data.user_id)
    profile = await profile_of(database, data)
    await bench.profiles.begin_generation(profile, bench.clock(), link_to=customer_id)
    bench.stripe.inject("server_error")  # of the link: a look-up follows

    assert await _provisioned(bench, newest(data)) == customer_id != former


async def test_of_two_users_linked_to_one_customer_at_once_one_is_refused(
    bench: Bench, database: Database
) -> None:
    """The customer is marked for the one whom our table names."""
    customer_id = existing_customer(bench)
    users = [linked_user(customer_id) for _ in range(4)]
    bench.stripe.set_options(call_seconds=0.1)
    await asyncio.gather(*map(bench.keep, users))

    results = await asyncio.gather(
        *(bench.provisioner.provision(data.user_id) for data in users), return_exceptions=True
    )

    owners = [data for data, got in zip(users, results, strict=True) if got == customer_id]
    assert sum(isinstance(each, LinkRefusedError) for each in results) == 3
    (owner,) = owners
    assert [each["id"] for each in bench.stripe.customers(owner.user_id)] == [customer_id]
    assert (await profile_of(database, owner)).stripe_customer_id == customer_id


async def test_an_operator_s_link_repeated_changes_nothing(bench: Bench) -> None:
    """It says so, and makes no call."""
    customer_id, user_id = existing_customer(bench), uuid4()
    await linked_by_hand(bench, user_id, customer_id)
    calls = len(bench.stripe.account.request_log.requests(1000))

    assert "already" in await linked_by_hand(bench, user_id, customer_id)

    assert len(bench.stripe.account.request_log.requests(1000)) == calls


@pytest.mark.parametrize("known", [False, True])
async def test_an_operator_s_foreign_link_changes_nothing(
    bench: Bench, database: Database, *, known: bool
) -> None:
    """Neither for an unknown user nor for one whose customer it would replace."""
    data, owner = user(), linked_user(existing_customer(bench))
    await bench.keep(owner)
    taken = await bench.provisioner.provision(owner.user_id)
    if known:
        await bench.keep(data)
        await bench.provisioner.provision(data.user_id)
    before = await ProfileReader(database).find(data.user_id)

    for customer_id in ("cus_missing", taken):
        with pytest.raises(LinkRefusedError):
            await linked_by_hand(bench, data.user_id, customer_id, replace=True)

    assert await ProfileReader(database).find(data.user_id) == before


async def linked_by_hand(
    bench: Bench, user_id: UUID, customer_id: str, *, replace: bool = False
) -> str:
    """Link as the command does; return what it says."""
    return await link(
        user_id,
        customer_id,
        replace=replace,
        reader=ProfileReader(bench.profiles._database),
        profiles=bench.profiles,
        stripe=bench.provisioner._stripe,
        provisioner=bench.provisioner,
        now=bench.clock,
    )


async def _provisioned(bench: Bench, data: UserCreatedV2) -> str:
    """Provision as redeliveries do; return the customer."""
    for _ in range(4):
        try:
            return await bench.provisioner.provision(data.user_id)
        except TransientError:
            bench.advance(seconds=20)
    return await bench.provisioner.provision(data.user_id)
