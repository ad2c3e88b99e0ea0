"""Answers that come after their attempt was overtaken change nothing of what is current."""

import asyncio

from customer_provisioner.circuit import OUTAGE_FROM
from customer_provisioner.inquiries import Inquiries
from customer_provisioner.profile import Create, LookUpFirst, Profile
from nexus_contracts import UserCreated
from nexus_database import Database

from .conftest import Bench, user


async def profile_of(database: Database, data: UserCreated) -> Profile:
    """Return the kept profile of a user."""
    profile = await Inquiries(database).find(data.user_id)
    assert profile is not None
    return profile


async def test_late_look_up_under_a_former_key_renews_nothing(
    bench: Bench, database: Database
) -> None:
    """The next key was sent meanwhile: its 20 hours count on, and it stays the next."""
    data = user()
    await bench.keep(data)
    first = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(first, Create)
    await bench.profiles.spend_key(first.attempt, "status 500", bench.clock())
    look = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(look, LookUpFirst)
    await bench.profiles.renew_key(look.attempt, bench.clock())
    second = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(second, Create)
    current = await profile_of(database, data)

    await bench.profiles.renew_key(look.attempt, bench.clock())
    await bench.profiles.refuse(first.attempt, "status 400", bench.clock())

    assert second.attempt.key_n == 2
    assert await profile_of(database, data) == current


async def test_late_refusal_changes_no_user_with_a_customer(
    bench: Bench, database: Database
) -> None:
    """A rival's answer brought the customer."""
    data = user()
    await bench.keep(data)
    step = await bench.profiles.claim(data.user_id, bench.clock())
    assert isinstance(step, Create)
    bench.advance(minutes=1)
    await bench.provisioning.provision(data.user_id)
    current = await profile_of(database, data)

    await bench.profiles.give_up(step.attempt, "no answer", bench.clock())

    assert await profile_of(database, data) == current


async def test_key_that_an_outage_spends_is_noted(bench: Bench, database: Database) -> None:
    """Also by the answer that opens the circuit: a repetition would be told the same 500."""
    people = [user() for _ in range(OUTAGE_FROM)]
    for data in people:
        await bench.keep(data)
    bench.stripe.befall("server_error", times=None)

    await asyncio.gather(
        *(bench.provisioning.provision(data.user_id) for data in people), return_exceptions=True
    )

    assert all([(await profile_of(database, data)).key_spent for data in people])
