"""One customer for each user, whatever happens between the service and Stripe."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from customer_provisioner.circuit import StripeKeyRefusedError
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Create, State
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.statements import KeepResult, Step, StoreResult
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.responses import KeySpentError
from customer_provisioner.sweep import sweep
from nexus_contracts import UserCreated, UserCreatedV2
from nexus_database import Database, DatabaseUnavailableError, RowRefusedError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY

from .conftest import Bench, profile_of, steps_of, user


def user_with_bad_address() -> UserCreatedV2:
    """Return a user whose address only Stripe refuses."""
    return UserCreatedV2.model_construct(user_id=user().user_id, email="bad address")


async def test_a_user_gets_a_customer_with_address_name_and_mark(
    bench: Bench, database: Database
) -> None:
    """The customer can be found again by its mark; the row has its id."""
    data = user(name="Ada")
    await bench.keep(data)

    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    profile = await profile_of(database, data)
    assert (customer["email"], customer["name"]) == (data.email, "Ada")
    assert profile.state is State.PROVISIONED
    assert profile.stripe_customer_id == customer["id"]
    assert await steps_of(database, data) == ["kept", "create_sent", "created"]


@pytest.mark.parametrize("fault", ["reset", "truncated", "html_503"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_lost_before_or_after_the_effect_makes_one_customer(
    bench: Bench, database: Database, fault: str, when: str
) -> None:
    """The same key and the same body return the same customer."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject(fault, when=when)

    with pytest.raises(TransientError):
        await bench.provisioner.provision(data.user_id)
    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    keys = {each["idempotency_key"] for each in bench.stripe.requests("POST")}
    assert keys == {f"customer-create:{data.user_id}:1"}
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


@pytest.mark.parametrize("fault", ["rate_limited", "lock_timeout", "conflict"])
async def test_a_409_or_429_spends_no_key(bench: Bench, fault: str) -> None:
    """They have no effect at Stripe: the same request is sent again."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject(fault)

    with pytest.raises(TransientError) as raised:
        await bench.provisioner.provision(data.user_id)
    await bench.provisioner.provision(data.user_id)

    assert not isinstance(raised.value, KeySpentError)
    assert len({each["idempotency_key"] for each in bench.stripe.requests("POST")}) == 1


async def test_two_attempts_at_once_make_one_call_and_one_customer(
    bench: Bench, database: Database
) -> None:
    """The others make no call, and find the customer later."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(call_seconds=0.3)

    results = await asyncio.gather(
        *(bench.provisioner.provision(data.user_id) for _ in range(5)), return_exceptions=True
    )
    await bench.provisioner.provision(data.user_id)

    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, TransientError) for result in results) == 4
    assert len(bench.stripe.requests("POST")) == 1
    assert (await profile_of(database, data)).state is State.PROVISIONED


async def test_an_attempt_longer_than_its_lease_makes_no_second_customer(
    bench: Bench, database: Database
) -> None:
    """The lease only saves calls. Without it the key decides: the other attempt gets a 409."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(call_seconds=0.5)

    slow = asyncio.create_task(bench.provisioner.provision(data.user_id))
    await bench.stripe.wait_for("POST")
    bench.advance(minutes=1)
    with pytest.raises(TransientError):
        await bench.provisioner.provision(data.user_id)
    await slow

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert [each["status"] for each in bench.stripe.requests("POST")] == [200, 409]


async def stored(_bench: Bench, _data: UserCreated) -> None:
    """Crash after the user was stored."""


async def claimed(bench: Bench, data: UserCreated) -> None:
    """Crash after the claim, before the call."""
    await bench.profiles.claim(data.user_id, bench.clock())


async def called(bench: Bench, data: UserCreated) -> None:
    """Crash after the call, before its answer was stored."""
    step = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(step, Create)
    async with StripeCalls(DEFAULT_KEY, bench.stripe.url, Metrics(CollectorRegistry())) as calls:
        await StripeApi(calls).create(step)


async def key_spent(bench: Bench, data: UserCreated) -> None:
    """Crash after a 500 that had its effect."""
    bench.stripe.inject("server_error", when="after")
    with pytest.raises(KeySpentError):
        await bench.provisioner.provision(data.user_id)


@pytest.mark.parametrize("crash", [stored, claimed, called, key_spent])
async def test_the_sweep_finishes_users_that_a_crash_left(
    bench: Bench,
    database: Database,
    crash: Callable[[Bench, UserCreated], Awaitable[None]],
) -> None:
    """From every state after a crash, the user gets one customer without a message."""
    data = user()
    await bench.keep(data)
    await crash(bench, data)
    bench.advance(minutes=6)

    await sweep(
        ProfileReader(database), bench.provisioner, Metrics(CollectorRegistry()), bench.clock
    )

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


async def test_the_sweep_leaves_new_users_to_their_message(
    bench: Bench, database: Database
) -> None:
    """The handler of the message takes care of a user that was just stored."""
    data = user()
    await bench.keep(data)

    await sweep(
        ProfileReader(database), bench.provisioner, Metrics(CollectorRegistry()), bench.clock
    )

    assert bench.stripe.requests("POST") == []


@pytest.mark.parametrize("seed", range(12))
async def test_random_faults_and_waits_end_in_one_customer(
    bench: Bench, database: Database, seed: int
) -> None:
    """Any faults in any order, hours apart or together; the customer is the stored one."""
    chance = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    data = user()
    await bench.keep(data)
    for _ in range(8):
        kind = chance.choice(("reset", "truncated", "html_503", "server_error", "rate_limited"))
        when = chance.choice(("before", "after"))
        method = chance.choice(("POST", "POST", "GET"))
        bench.stripe.inject(kind, when=when, method=method)
        attempts = chance.choice((1, 1, 3))
        await asyncio.gather(
            *(bench.provisioner.provision(data.user_id) for _ in range(attempts)),
            return_exceptions=True,
        )
        bench.advance(hours=chance.choice((0, 0.1, 5, 19.9, 20, 25, 50)))

    bench.stripe.account.faults.remove()
    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


async def test_a_refusal_is_permanent_and_shows_no_address(
    bench: Bench, database: Database
) -> None:
    """It names code and parameter, and the sweep does not call Stripe for the user again."""
    data = user_with_bad_address()
    await bench.keep(data)

    with pytest.raises(PermanentError) as refusal:
        await bench.provisioner.provision(data.user_id)

    profile = await profile_of(database, data)
    assert refusal.value.reason is Reason.REFUSED_BY_STRIPE
    assert "email_invalid" in str(refusal.value)
    assert "bad address" not in f"{refusal.value} {profile.last_fault} {profile!r}"
    bench.advance(hours=1)
    assert await ProfileReader(database).due(bench.clock(), 10) == []


async def test_a_refused_address_is_replaced_by_the_next(bench: Bench, database: Database) -> None:
    """The corrected address is sent under a new key."""
    wrong = user_with_bad_address()
    right = UserCreated(user_id=wrong.user_id, email="ada@example.com")
    await bench.keep(wrong)
    with pytest.raises(PermanentError):
        await bench.provisioner.provision(wrong.user_id)

    kept = await bench.keep(right)
    await bench.provisioner.provision(right.user_id)

    (customer,) = bench.stripe.customers(right.user_id)
    assert kept is KeepResult.ADDRESS_REPLACED
    assert customer["email"] == "ada@example.com"
    assert (await profile_of(database, right)).refused_as is None


async def test_the_first_address_stays(bench: Bench) -> None:
    """A second address of a known user is neither stored nor sent to Stripe."""
    first = user()
    await bench.keep(first)

    kept = await bench.keep(UserCreated(user_id=first.user_id, email="other@example.com"))
    await bench.provisioner.provision(first.user_id)

    (customer,) = bench.stripe.customers(first.user_id)
    assert kept is KeepResult.ADDRESS_IGNORED
    assert customer["email"] == first.email


async def test_a_refused_key_opens_the_circuit_breaker(bench: Bench) -> None:
    """No user is refused, and no further call follows."""
    first, second = user(), user()
    await bench.keep(first)
    await bench.keep(second)
    bench.stripe.account.keys.put(DEFAULT_KEY, KeyState.REVOKED)

    for data in (first, second):
        with pytest.raises(StripeKeyRefusedError):
            await bench.provisioner.provision(data.user_id)

    assert len(bench.stripe.requests("POST")) == 1


async def test_a_second_customer_does_not_replace_the_first(
    bench: Bench, database: Database
) -> None:
    """A late answer with another customer is reported as surplus."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    profile = await profile_of(database, data)

    late = await bench.profiles.store(profile.attempt, "cus_late", Step.CREATED, bench.clock())

    assert late is StoreResult.SURPLUS
    assert (await profile_of(database, data)).stripe_customer_id == profile.stripe_customer_id


async def test_a_late_answer_of_the_previous_generation_is_not_stored(
    bench: Bench, database: Database
) -> None:
    """The next generation has no customer yet, and this one is not its customer."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    former = await profile_of(database, data)
    assert await bench.profiles.begin_generation(former, bench.clock())

    late = await bench.profiles.store(former.attempt, "cus_late", Step.CREATED, bench.clock())

    profile = await profile_of(database, data)
    assert late is StoreResult.SURPLUS
    assert (profile.generation, profile.state) == (2, State.PROVISIONING)
    assert profile.stripe_customer_id is None


async def test_a_new_generation_does_not_adopt_the_deleted_customer(
    bench: Bench, database: Database
) -> None:
    """Even if the search of a look-up still finds it."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    former = await profile_of(database, data)
    assert former.stripe_customer_id is not None
    bench.advance(minutes=10)
    bench.stripe.delete(former.stripe_customer_id)
    bench.stripe.set_options(search_lag_seconds=60.0)
    bench.stripe.inject("server_error")

    assert await bench.profiles.begin_generation(former, bench.clock())
    with pytest.raises(KeySpentError):
        await bench.provisioner.provision(data.user_id)
    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    profile = await profile_of(database, data)
    assert profile.generation == 2
    assert profile.stripe_customer_id == customer["id"] != former.stripe_customer_id
    assert not await bench.profiles.begin_generation(former, bench.clock())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE user_profiles SET stripe_customer_id = NULL",
        "UPDATE user_profiles SET state = 'provisioning'",
        "UPDATE user_profiles SET generation = 0",
        "UPDATE user_profiles SET announced_generation = 2",
        "UPDATE user_profiles SET email = 'other@example.com'",
        "UPDATE user_profiles SET key_spent = true, call_started_at = NULL",
    ],
)
async def test_the_database_refuses_contradictory_profiles(
    bench: Bench, database: Database, statement: str
) -> None:
    """Constraints guard what the code promises."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)

    with pytest.raises(RowRefusedError):
        await database.run(lambda connection: connection.execute(text(statement)))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM user_profiles",
        "UPDATE user_profiles SET user_id = gen_random_uuid()",
        "UPDATE provisioning_steps SET step = 'announced'",
        "DELETE FROM provisioning_steps",
    ],
)
async def test_the_service_may_not_rewrite_history(database: Database, statement: str) -> None:
    """Its role lacks every right that the service does not need."""
    with pytest.raises(DatabaseUnavailableError, match="42501"):
        await database.run(lambda connection: connection.execute(text(statement)))
