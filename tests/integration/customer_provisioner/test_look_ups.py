"""A customer that may exist already: it is looked for at Stripe before another is made."""

import pytest

from customer_provisioner.stripe_api import KeySpentError
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.errors import TransientError

from .conftest import Bench, profile_of, steps_of, user


async def unfinished(bench: Bench, fault: str, when: str) -> UserCreated:
    """Keep a user whose first creation meets ``fault``, ``before`` or ``after`` its effect."""
    data = user()
    await bench.keep(data)
    bench.stripe.befall(fault, when=when)
    with pytest.raises(KeySpentError if fault == "server_error" else TransientError):
        await bench.provisioning.provision(data.user_id)
    return data


async def test_a_customer_made_by_a_call_unknown_for_a_day_is_found_not_made_again(
    bench: Bench, database: Database
) -> None:
    """Past 20 hours the key protects no more: the customer is looked for and adopted."""
    data = await unfinished(bench, "reset", "after")
    bench.advance(hours=25)

    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1
    assert (await steps_of(database, data))[-1] == "adopted"


async def test_retries_do_not_renew_the_20_hours_of_a_key(bench: Bench, database: Database) -> None:
    """They count from the first call under the key, as Stripe's 24 do."""
    data = user()
    await bench.keep(data)
    bench.stripe.befall("reset", when="after")
    for hours in (15, 6):
        with pytest.raises(TransientError):
            await bench.provisioning.provision(data.user_id)
        bench.stripe.befall("reset", when="before")
        bench.advance(hours=hours)
    bench.stripe.account.faults.remove()

    await bench.provisioning.provision(data.user_id)

    assert len(bench.stripe.requests("POST")) == 2
    assert (await steps_of(database, data))[-1] == "adopted"


async def test_a_customer_on_the_second_page_of_its_address_is_adopted(
    bench: Bench, database: Database
) -> None:
    """With 101 newer customers of the same address, while search still lags."""
    data = await unfinished(bench, "server_error", "after")
    (customer,) = bench.stripe.customers(data.user_id)
    for _ in range(101):
        other = {"email": data.email, "metadata": {"user_id": str(user().user_id)}}
        bench.stripe.account.customers.create(other, bench.stripe.account.clock.now())
    bench.stripe.set_options(search_lag_seconds=3600.0)

    await bench.provisioning.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1


@pytest.mark.parametrize("search_lag", [0.0, 3600.0])
@pytest.mark.parametrize("marked", [2, 101])
async def test_of_several_marked_customers_the_oldest_is_adopted(
    bench: Bench, database: Database, search_lag: float, marked: int
) -> None:
    """However many there are: it is the one that may have usage; the others are surplus."""
    data = await unfinished(bench, "server_error", "before")
    made, account = [], bench.stripe.account
    for _ in range(marked):
        body = {"email": data.email, "metadata": {"user_id": str(data.user_id)}}
        made.append(account.customers.create(body, account.clock.now())["id"])
        account.clock.advance(1.0)
    bench.stripe.set_options(search_lag_seconds=search_lag)

    await bench.provisioning.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == made[0]


async def test_a_customer_is_found_by_its_mark_when_its_address_was_changed(
    bench: Bench, database: Database
) -> None:
    """Search goes by metadata; the list by address would miss it."""
    data = await unfinished(bench, "reset", "after")
    (customer,) = bench.stripe.customers(data.user_id)
    account = bench.stripe.account
    account.customers.update(customer["id"], {"email": "new@example.com"}, account.clock.now())
    bench.advance(hours=21)

    await bench.provisioning.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1


async def test_a_call_unknown_for_a_day_without_effect_is_made_again_under_a_new_key(
    bench: Bench, database: Database
) -> None:
    """Where there is nothing to find, the customer is created; other people's are not taken."""
    data = user()
    other = {"email": data.email, "metadata": {"user_id": str(user().user_id)}}
    bench.stripe.account.customers.create(other, bench.stripe.account.clock.now())
    await bench.keep(data)
    bench.stripe.befall("reset", when="before")
    with pytest.raises(TransientError):
        await bench.provisioning.provision(data.user_id)
    bench.advance(hours=25)

    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    last = bench.stripe.requests("POST")[-1]
    assert last["idempotency_key"] == f"customer-create:{data.user_id}:1:2"
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


@pytest.mark.parametrize("search_lag", [0.0, 3600.0])
@pytest.mark.parametrize(("when", "last"), [("after", "adopted"), ("before", "created")])
async def test_a_500_is_followed_by_a_look_and_only_then_by_a_new_key(
    bench: Bench, database: Database, when: str, last: str, search_lag: float
) -> None:
    """Stripe repeats its 500 under the key, effect or none; the list shows which, without lag."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(search_lag_seconds=search_lag)
    bench.stripe.befall("server_error", when=when)

    with pytest.raises(KeySpentError):
        await bench.provisioning.provision(data.user_id)
    await bench.provisioning.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert (await steps_of(database, data))[-1] == last
