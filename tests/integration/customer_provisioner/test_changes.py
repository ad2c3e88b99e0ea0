"""A changed address or name follows to the customer at Stripe, in whatever order events arrive."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.changes import Send
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.sweep import sweep, sweep_changes
from nexus_contracts import UserCreatedV2, UserUpdated
from nexus_database import Database, RowsBusyError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason

from .conftest import Bench, profile_of, steps_of, user

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def update(bench: Bench, user_id: UUID, minute: int, **said: str) -> bool:
    """Keep and send an update of so many minutes past noon, as the handler does."""
    update = UserUpdated(user_id=user_id, **said)
    new = await bench.changes.keep(update, NOON + timedelta(minutes=minute), bench.clock())
    await bench.follower.follow(user_id)
    return new


def shown(bench: Bench, user_id: UUID) -> tuple[str | None, str | None]:
    """Return address and name of the user's only customer at Stripe."""
    (customer,) = bench.stripe.customers(user_id)
    return customer["email"], customer["name"]


async def test_address_and_name_follow_to_the_customer(bench: Bench, database: Database) -> None:
    """An empty name removes it; what is absent stays."""
    data = user(name="Ada")
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)

    await update(bench, data.user_id, 1, email="new@example.com")
    assert shown(bench, data.user_id) == ("new@example.com", "Ada")
    await update(bench, data.user_id, 2, name="")

    assert shown(bench, data.user_id) == ("new@example.com", None)
    found = await ProfileReader(database).with_email("new@example.com")
    assert [each.user_id for each in found] == [data.user_id]
    assert (await steps_of(database, data)).count("change_sent") == 2


async def test_an_older_update_that_arrives_later_changes_nothing(bench: Bench) -> None:
    """And makes no call; but a field that only it has is taken."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    await update(bench, data.user_id, 5, email="new@example.com")
    calls = len(bench.stripe.account.request_log.requests(1000))

    assert not await update(bench, data.user_id, 4, email="old@example.com")
    assert len(bench.stripe.account.request_log.requests(1000)) == calls
    assert await update(bench, data.user_id, 4, email="old@example.com", name="Ada")

    assert shown(bench, data.user_id) == ("new@example.com", "Ada")


@pytest.mark.parametrize("linked", [False, True])
async def test_an_update_before_its_user_waits_for_the_customer(
    bench: Bench, *, linked: bool
) -> None:
    """It makes no customer by itself, and is sent once there is one."""
    data = UserCreatedV2(user_id=uuid4(), email="first@example.com")
    if linked:
        account = bench.stripe.account
        own = account.customers.create({"email": "own@example.com"}, account.clock.now())
        data = data.model_copy(update={"stripe_customer_id": own["id"]})
    await update(bench, data.user_id, 1, email="new@example.com")
    assert bench.stripe.customers(data.user_id) == []
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)

    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)


async def test_changes_of_unknown_users_are_no_work_for_the_sweep(
    bench: Bench, database: Database
) -> None:
    """A platform may publish changes of all its users, and only some have a customer."""
    unread = text("SELECT count(*) FROM user_changes WHERE due_at = 'infinity'")
    for _ in range(3):
        await update(bench, uuid4(), 1, email="new@example.com")

    assert await database.run(lambda connection: connection.scalar(unread)) == 3
    assert await bench.changes.waiting_since() is None


async def test_a_change_is_not_set_aside_while_the_customer_is_being_stored(
    bench: Bench, database: Database
) -> None:
    """The transaction that stores the customer would not see a change that came meanwhile."""
    data = user()
    await bench.keep(data)
    update = UserUpdated(user_id=data.user_id, email="new@example.com")
    await bench.changes.keep(update, NOON, bench.clock())

    async def store(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT FROM user_profiles FOR UPDATE"))
        with pytest.raises(RowsBusyError):
            await bench.changes.claim(data.user_id, bench.clock())

    await database.run(store)


async def test_a_change_waits_while_an_attempt_is_open(bench: Bench) -> None:
    """The request of the creation stays as it was sent, and its customer gets the change."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject("reset", when="after")
    with pytest.raises(TransientError):
        await bench.provisioner.provision(data.user_id)

    await update(bench, data.user_id, 1, email="new@example.com")
    assert shown(bench, data.user_id) == (data.email, None)
    await bench.provisioner.provision(data.user_id)
    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)
    assert len({each["idempotency_key"] for each in bench.stripe.requests("POST")}) == 1


@pytest.mark.parametrize("fault", ["reset", "html_503", "server_error", "rate_limited"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_change_is_sent_again_after_a_lost_answer(
    bench: Bench, fault: str, when: str
) -> None:
    """By its message, or by the sweep."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    bench.stripe.inject(fault, when=when)

    with pytest.raises(TransientError):
        await update(bench, data.user_id, 1, email="new@example.com")
    bench.advance(minutes=6)
    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_change_that_a_crash_left_is_sent_by_the_sweep(bench: Bench, steps: int) -> None:
    """After it was stored, claimed, or sent; once the claim has ended."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    said = UserUpdated(user_id=data.user_id, email="new@example.com")
    await bench.changes.keep(said, NOON, bench.clock())
    claimed = await bench.changes.claim(data.user_id, bench.clock()) if steps else None
    if steps > 1:
        assert isinstance(claimed, Send)
        await bench.follower._stripe.update(replace(claimed, body={"name": "Ada"}))
    await swept(bench)
    assert shown(bench, data.user_id)[0] == data.email

    bench.advance(minutes=6)
    await swept(bench)

    assert shown(bench, data.user_id)[0] == "new@example.com"


async def test_a_change_that_comes_during_a_call_is_sent_after_it(bench: Bench) -> None:
    """The call that ends does not count for it."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    former = UserUpdated(user_id=data.user_id, email="old@example.com")
    latter = UserUpdated(user_id=data.user_id, email="new@example.com")

    await bench.changes.keep(former, NOON, bench.clock())
    during = await bench.changes.claim(data.user_id, bench.clock())
    await bench.changes.keep(latter, NOON + timedelta(minutes=1), bench.clock())
    assert isinstance(during, Send)
    assert not await bench.changes.finish(during, bench.clock())
    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)


async def test_a_change_after_a_lost_answer_waits_until_the_claim_ends(bench: Bench) -> None:
    """Or the older call might arrive after it."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    bench.stripe.inject("reset", when="before")
    with pytest.raises(TransientError):
        await update(bench, data.user_id, 1, email="old@example.com")

    await update(bench, data.user_id, 2, email="new@example.com")
    assert shown(bench, data.user_id) == (data.email, None)
    bench.advance(minutes=6)
    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)


@pytest.mark.parametrize("answered", [True, False])
async def test_a_call_that_ends_after_a_newer_one_is_followed_by_the_newest(
    bench: Bench, *, answered: bool
) -> None:
    """Its process stood still until the claim had ended: Stripe may have the older change."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    former = UserUpdated(user_id=data.user_id, email="old@example.com")
    await bench.changes.keep(former, NOON, bench.clock())
    late = await bench.changes.claim(data.user_id, bench.clock())
    assert isinstance(late, Send)
    bench.advance(minutes=1)
    await update(bench, data.user_id, 1, email="new@example.com")

    await bench.provisioner._stripe.update(late)
    if answered:
        await bench.changes.finish(late, bench.clock())
    else:
        await bench.changes.fail(late, "no response from Stripe", bench.clock())
    bench.advance(minutes=1)
    await swept(bench)

    assert shown(bench, data.user_id)[0] == "new@example.com"


async def test_of_changes_at_once_the_latest_is_at_stripe_in_the_end(bench: Bench) -> None:
    """Calls for one user follow each other."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    bench.stripe.set_options(call_seconds=0.1)

    await asyncio.gather(
        *(update(bench, data.user_id, each, email=f"{each}@example.com") for each in range(8))
    )
    bench.advance(minutes=6)
    await swept(bench)

    assert shown(bench, data.user_id) == ("7@example.com", None)


async def test_a_refused_change_is_permanent_until_the_next(bench: Bench) -> None:
    """The sweep leaves it alone; a later address, or the same one moved back, is tried."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    bench.stripe.inject("status", status=400, times=2)

    with pytest.raises(PermanentError) as refusal:
        await update(bench, data.user_id, 1, email="wrong@example.com")
    bench.advance(hours=1)
    await swept(bench)
    with pytest.raises(PermanentError):
        await update(bench, data.user_id, 1, email="wrong@example.com")

    assert "wrong@" not in str(refusal.value)
    await update(bench, data.user_id, 2, email="right@example.com")
    assert shown(bench, data.user_id) == ("right@example.com", None)


async def test_a_change_for_a_deleted_customer_waits_for_the_next(
    bench: Bench, database: Database
) -> None:
    """It is dead-lettered like usage for it; the next generation's customer gets it."""
    data = user()
    await bench.keep(data)
    bench.stripe.delete(await bench.provisioner.provision(data.user_id))

    with pytest.raises(PermanentError) as refusal:
        await update(bench, data.user_id, 1, email="new@example.com")
    await bench.profiles.begin_generation(await profile_of(database, data), bench.clock())
    await bench.provisioner.provision(data.user_id)
    await swept(bench)

    assert refusal.value.reason is Reason.NO_SUCH_CUSTOMER
    assert shown(bench, data.user_id) == ("new@example.com", None)


async def test_a_new_generation_gets_what_changed(bench: Bench, database: Database) -> None:
    """It is created with the first address."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    await update(bench, data.user_id, 1, email="new@example.com")
    former = await profile_of(database, data)
    bench.stripe.delete(str(former.stripe_customer_id))
    await bench.profiles.begin_generation(former, bench.clock())

    await bench.provisioner.provision(data.user_id)
    await swept(bench)

    assert shown(bench, data.user_id) == ("new@example.com", None)


@pytest.mark.parametrize("updated_first", [False, True])
async def test_an_updated_address_corrects_a_refused_one(
    bench: Bench, database: Database, *, updated_first: bool
) -> None:
    """The user gets a customer without a further `user.created`, in either order of the events."""
    data = UserCreatedV2.model_construct(user_id=uuid4(), email="bad address")
    if updated_first:
        await update(bench, data.user_id, 1, email="ada@example.com")
    await bench.keep(data)
    with pytest.raises(PermanentError):
        await bench.provisioner.provision(data.user_id)

    if not updated_first:
        await update(bench, data.user_id, 1, email="ada@example.com")
        assert await bench.profiles.correct_address(data.user_id, bench.clock())
    await sweep(ProfileReader(database), bench.provisioner, bench.metrics, bench.clock)

    assert shown(bench, data.user_id) == ("ada@example.com", None)


async def swept(bench: Bench) -> None:
    """Do one round of the sweep of changes."""
    await sweep_changes(bench.changes, bench.follower, bench.metrics, bench.clock)
