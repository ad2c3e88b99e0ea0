"""One customer for each user, whatever happens between here and Stripe."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Create, State
from customer_provisioner.profiles import Kept, Stored, Taken
from customer_provisioner.stripe_api import KeySpentError, StripeApi, StripeKeyRefusedError
from customer_provisioner.sweep import Sweep
from nexus_contracts import UserCreated
from nexus_database import Database, DatabaseUnavailableError, RowRefusedError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY

from .conftest import Bench, profile_of, steps_of, user


def unmailable() -> UserCreated:
    """Return a user whose address only Stripe refuses."""
    return UserCreated.model_construct(user_id=user().user_id, email="nobody at home", name=None)


async def test_a_user_gets_a_customer_with_address_name_and_mark(
    bench: Bench, database: Database
) -> None:
    """The customer carries what is needed to find it again; the row keeps its id."""
    data = user(name="Ada")
    await bench.keep(data)

    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    profile = await profile_of(database, data)
    assert (customer["email"], customer["name"]) == (data.email, "Ada")
    assert profile.state is State.PROVISIONED
    assert profile.stripe_customer_id == customer["id"]
    assert await steps_of(database, data) == ["kept", "create_sent", "created"]


@pytest.mark.parametrize("fault", ["reset", "truncated", "html_503"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_lost_before_or_after_the_effect_leaves_one_customer(
    bench: Bench, database: Database, fault: str, when: str
) -> None:
    """The same key and the same body bring the same customer."""
    data = user()
    await bench.keep(data)
    bench.stripe.befall(fault, when=when)

    with pytest.raises(TransientError):
        await bench.provisioning.provision(data.user_id)
    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    keys = {each["idempotency_key"] for each in bench.stripe.requests("POST")}
    assert keys == {f"customer-create:{data.user_id}:1"}
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


@pytest.mark.parametrize("fault", ["rate_limited", "lock_timeout", "conflict"])
async def test_an_answer_that_says_to_come_again_spends_no_key(bench: Bench, fault: str) -> None:
    """429 and 409 change nothing at Stripe: the same request is sent again."""
    data = user()
    await bench.keep(data)
    bench.stripe.befall(fault)

    with pytest.raises(TransientError) as raised:
        await bench.provisioning.provision(data.user_id)
    await bench.provisioning.provision(data.user_id)

    assert not isinstance(raised.value, KeySpentError)
    assert len({each["idempotency_key"] for each in bench.stripe.requests("POST")}) == 1


async def test_two_attempts_at_once_make_one_call_and_one_customer(
    bench: Bench, database: Database
) -> None:
    """Whoever comes second is sent away without a call, and finds the customer later."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(call_seconds=0.3)

    results = await asyncio.gather(
        *(bench.provisioning.provision(data.user_id) for _ in range(5)), return_exceptions=True
    )
    await bench.provisioning.provision(data.user_id)

    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, TransientError) for result in results) == 4
    assert len(bench.stripe.requests("POST")) == 1
    assert (await profile_of(database, data)).state is State.PROVISIONED


async def test_an_attempt_taken_for_dead_that_lives_makes_no_second_customer(
    bench: Bench, database: Database
) -> None:
    """The claim only saves calls; with it gone, the key holds: the rival gets a 409."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(call_seconds=0.5)

    slow = asyncio.create_task(bench.provisioning.provision(data.user_id))
    await bench.stripe.asked("POST")
    bench.advance(minutes=1)
    with pytest.raises(TransientError):
        await bench.provisioning.provision(data.user_id)
    await slow

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert [each["status"] for each in bench.stripe.requests("POST")] == [200, 409]


async def _nothing_more(_bench: Bench, _data: UserCreated) -> None:
    """Crash after keeping."""


async def _claimed(bench: Bench, data: UserCreated) -> None:
    """Crash after the claim, before the call."""
    await bench.profiles.claim(data.user_id, bench.clock())


async def _called(bench: Bench, data: UserCreated) -> None:
    """Crash after the call, before its answer was stored."""
    step = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(step, Create)
    api = StripeApi(DEFAULT_KEY, bench.stripe.url, Metrics(CollectorRegistry()))
    await api.create(step)
    await api.close()


async def _spent(bench: Bench, data: UserCreated) -> None:
    """Crash after a 500 that had its effect."""
    bench.stripe.befall("server_error", when="after")
    with pytest.raises(KeySpentError):
        await bench.provisioning.provision(data.user_id)


@pytest.mark.parametrize("crash", [_nothing_more, _claimed, _called, _spent])
async def test_the_sweep_finishes_what_a_crash_left(
    bench: Bench,
    database: Database,
    crash: Callable[[Bench, UserCreated], Awaitable[None]],
) -> None:
    """From every state a crash can leave, the user gets exactly one customer without a message."""
    data = user()
    await bench.keep(data)
    await crash(bench, data)
    bench.advance(minutes=6)

    sweep = Sweep(
        Inquiries(database), bench.provisioning, Metrics(CollectorRegistry()), bench.clock
    )
    await sweep.sweep()

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


async def test_the_sweep_leaves_fresh_users_to_their_message(
    bench: Bench, database: Database
) -> None:
    """A user that was only just kept is somebody's work already."""
    data = user()
    await bench.keep(data)

    sweep = Sweep(
        Inquiries(database), bench.provisioning, Metrics(CollectorRegistry()), bench.clock
    )
    await sweep.sweep()

    assert bench.stripe.requests("POST") == []


@pytest.mark.parametrize("seed", range(12))
async def test_no_run_of_faults_and_waits_ends_in_two_customers(
    bench: Bench, database: Database, seed: int
) -> None:
    """Any faults in any order, hours apart or at once, then quiet: one customer, the one stored."""
    chance = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    data = user()
    await bench.keep(data)
    for _ in range(8):
        kind = chance.choice(("reset", "truncated", "html_503", "server_error", "rate_limited"))
        when = chance.choice(("before", "after"))
        method = chance.choice(("POST", "POST", "GET"))
        bench.stripe.befall(kind, when=when, method=method)
        rivals = chance.choice((1, 1, 3))
        await asyncio.gather(
            *(bench.provisioning.provision(data.user_id) for _ in range(rivals)),
            return_exceptions=True,
        )
        bench.advance(hours=chance.choice((0, 0.1, 5, 19.9, 20, 25, 50)))

    bench.stripe.account.faults.remove()
    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


async def test_a_refusal_is_permanent_and_tells_no_address(
    bench: Bench, database: Database
) -> None:
    """The refusal names code and parameter; the sweep does not ask Stripe again and again."""
    data = unmailable()
    await bench.keep(data)

    with pytest.raises(PermanentError) as refusal:
        await bench.provisioning.provision(data.user_id)

    profile = await profile_of(database, data)
    assert refusal.value.reason is Reason.REFUSED_BY_STRIPE
    assert "email_invalid" in str(refusal.value)
    assert "nobody" not in f"{refusal.value} {profile.last_fault} {profile!r}"
    bench.advance(hours=1)
    assert await Inquiries(database).due(bench.clock(), 10) == []


async def test_a_refused_address_gives_way_to_the_next(bench: Bench, database: Database) -> None:
    """A corrected address is all it takes: it is sent under a new key and answered."""
    wrong = unmailable()
    right = UserCreated(user_id=wrong.user_id, email="ada@example.com")
    await bench.keep(wrong)
    with pytest.raises(PermanentError):
        await bench.provisioning.provision(wrong.user_id)

    kept = await bench.profiles.keep(right, bench.clock())
    await bench.provisioning.provision(right.user_id)

    (customer,) = bench.stripe.customers(right.user_id)
    assert kept is Kept.ADDRESS_REPLACED
    assert customer["email"] == "ada@example.com"
    assert (await profile_of(database, right)).refused_as is None


async def test_the_first_address_stands(bench: Bench) -> None:
    """Another address of a known user is neither kept nor sent to Stripe."""
    first = user()
    await bench.keep(first)

    kept = await bench.profiles.keep(
        UserCreated(user_id=first.user_id, email="other@example.com"), bench.clock()
    )
    await bench.provisioning.provision(first.user_id)

    (customer,) = bench.stripe.customers(first.user_id)
    assert kept is Kept.OTHER_ADDRESS
    assert customer["email"] == first.email


async def test_a_refused_key_is_an_outage_and_pauses_the_calls(bench: Bench) -> None:
    """Not the user is at fault; while the key is refused, Stripe is not asked on and on."""
    first, second = user(), user()
    await bench.keep(first)
    await bench.keep(second)
    bench.stripe.account.keys.put(DEFAULT_KEY, KeyState.REVOKED)

    for data in (first, second):
        with pytest.raises(StripeKeyRefusedError):
            await bench.provisioning.provision(data.user_id)

    assert len(bench.stripe.requests("POST")) == 1


async def test_a_second_customer_is_never_taken_over_the_first(
    bench: Bench, database: Database
) -> None:
    """The first stored stays; a late answer with another one is told, not obeyed."""
    data = user()
    await bench.keep(data)
    await bench.provisioning.provision(data.user_id)
    profile = await profile_of(database, data)

    late = await bench.profiles.store(profile.attempt, "cus_late", Taken.CREATED, bench.clock())

    assert late is Stored.SURPLUS
    assert (await profile_of(database, data)).stripe_customer_id == profile.stripe_customer_id


async def test_a_late_answer_of_the_former_generation_is_not_stored_for_the_next(
    bench: Bench, database: Database
) -> None:
    """The next generation has no customer yet, and that one is the deleted one's rival."""
    data = user()
    await bench.keep(data)
    await bench.provisioning.provision(data.user_id)
    former = await profile_of(database, data)
    assert await bench.profiles.renew(former, bench.clock())

    late = await bench.profiles.store(former.attempt, "cus_late", Taken.CREATED, bench.clock())

    profile = await profile_of(database, data)
    assert late is Stored.SURPLUS
    assert (profile.generation, profile.state) == (2, State.PROVISIONING)
    assert profile.stripe_customer_id is None


async def test_a_new_generation_gets_a_new_customer_and_not_the_deleted_one(
    bench: Bench, database: Database
) -> None:
    """Even a look-up through a search that still shows the deleted customer passes it by."""
    data = user()
    await bench.keep(data)
    await bench.provisioning.provision(data.user_id)
    former = await profile_of(database, data)
    assert former.stripe_customer_id is not None
    bench.advance(minutes=10)
    bench.stripe.delete(former.stripe_customer_id)
    bench.stripe.set_options(search_lag_seconds=60.0)
    bench.stripe.befall("server_error")

    assert await bench.profiles.renew(former, bench.clock())
    with pytest.raises(KeySpentError):
        await bench.provisioning.provision(data.user_id)
    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    profile = await profile_of(database, data)
    assert profile.generation == 2
    assert profile.stripe_customer_id == customer["id"] != former.stripe_customer_id
    assert not await bench.profiles.renew(former, bench.clock())


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
async def test_the_database_refuses_profiles_that_contradict_themselves(
    bench: Bench, database: Database, statement: str
) -> None:
    """Constraints prove what the code promises."""
    data = user()
    await bench.keep(data)
    await bench.provisioning.provision(data.user_id)

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
    """What the service never does, its role can't do."""
    with pytest.raises(DatabaseUnavailableError, match="42501"):
        await database.run(lambda connection: connection.execute(text(statement)))
