"""Answers to outdated attempts change nothing."""

import asyncio

from customer_provisioner.circuit import FAILURE_THRESHOLD
from customer_provisioner.profile import Create, LookUp
from customer_provisioner.storage.statements import Failure
from nexus_database import Database

from .conftest import Bench, profile_of, user


async def test_late_look_up_of_a_previous_key_changes_nothing(
    bench: Bench, database: Database
) -> None:
    """The next key was sent meanwhile: it stays, and so does the start of its 20 hours."""
    data = user()
    await bench.keep(data)
    first = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(first, Create)
    await bench.profiles.fail(first.attempt, Failure.KEY_SPENT, "status 500", bench.clock())
    look = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(look, LookUp)
    await bench.profiles.renew_key(look.attempt, bench.clock())
    second = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(second, Create)
    current = await profile_of(database, data)

    await bench.profiles.renew_key(look.attempt, bench.clock())
    await bench.profiles.fail(first.attempt, Failure.REFUSED, "status 400", bench.clock())

    assert second.attempt.key_n == 2
    assert await profile_of(database, data) == current


async def test_late_refusal_changes_no_user_with_a_customer(
    bench: Bench, database: Database
) -> None:
    """Another attempt has stored the customer."""
    data = user()
    await bench.keep(data)
    step = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(step, Create)
    bench.advance(minutes=1)
    await bench.provisioner.provision(data.user_id)
    current = await profile_of(database, data)

    await bench.profiles.fail(step.attempt, Failure.RETRYABLE, "no answer", bench.clock())

    assert await profile_of(database, data) == current


async def test_a_key_spent_in_an_outage_is_stored(bench: Bench, database: Database) -> None:
    """Also if the answer opens the circuit breaker: under this key Stripe repeats the 500."""
    new_users = [user() for _ in range(FAILURE_THRESHOLD)]
    for data in new_users:
        await bench.keep(data)
    bench.stripe.inject("server_error", times=None)

    await asyncio.gather(
        *(bench.provisioner.provision(data.user_id) for data in new_users), return_exceptions=True
    )

    assert all([(await profile_of(database, data)).key_spent for data in new_users])
