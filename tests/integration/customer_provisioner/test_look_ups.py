"""A customer that may exist: the service looks it up at Stripe before it creates another."""

import pytest

from customer_provisioner.linking import LinkFault, LinkRefusedError
from customer_provisioner.stripe.responses import KeySpentError
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.errors import TransientError

from .conftest import Bench, profile_of, steps_of, user


async def unfinished(bench: Bench, fault: str, when: str) -> UserCreated:
    """Store a user whose first creation fails with ``fault``, before or after its effect."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject(fault, when=when)
    with pytest.raises(KeySpentError if fault == "server_error" else TransientError):
        await bench.provisioner.provision(data.user_id)
    return data


async def test_a_customer_of_an_unknown_call_is_adopted_after_a_day(
    bench: Bench, database: Database
) -> None:
    """After 20 hours the key is not repeated: the customer is looked up and adopted."""
    data = await unfinished(bench, "reset", "after")
    bench.advance(hours=25)

    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1
    assert (await steps_of(database, data))[-1] == "adopted"


async def test_retries_do_not_renew_the_20_hours_of_a_key(bench: Bench, database: Database) -> None:
    """They count from the first call under the key, like the 24 hours of Stripe."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject("reset", when="after")
    for hours in (15, 6):
        with pytest.raises(TransientError):
            await bench.provisioner.provision(data.user_id)
        bench.stripe.inject("reset", when="before")
        bench.advance(hours=hours)
    bench.stripe.account.faults.remove()

    await bench.provisioner.provision(data.user_id)

    assert len(bench.stripe.requests("POST")) == 2
    assert (await steps_of(database, data))[-1] == "adopted"


async def test_a_customer_on_the_second_page_of_the_list_is_adopted(
    bench: Bench, database: Database
) -> None:
    """There are 101 newer customers of the same address, and search still lags."""
    data = await unfinished(bench, "server_error", "after")
    (customer,) = bench.stripe.customers(data.user_id)
    for _ in range(101):
        other = {"email": data.email, "metadata": {"user_id": str(user().user_id)}}
        bench.stripe.account.customers.create(other, bench.stripe.account.clock.now())
    bench.stripe.set_options(search_lag_seconds=3600.0)

    await bench.provisioner.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1


@pytest.mark.parametrize("search_lag", [0.0, 3600.0])
@pytest.mark.parametrize("marked", [2, 101])
async def test_of_several_marked_customers_the_oldest_is_adopted(
    bench: Bench, database: Database, search_lag: float, marked: int
) -> None:
    """The oldest one may have usage; the others are surplus."""
    data = await unfinished(bench, "server_error", "before")
    made, account = [], bench.stripe.account
    for _ in range(marked):
        body = {"email": data.email, "metadata": {"user_id": str(data.user_id)}}
        made.append(account.customers.create(body, account.clock.now())["id"])
        account.clock.advance(1.0)
    bench.stripe.set_options(search_lag_seconds=search_lag)

    await bench.provisioner.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == made[0]


async def test_a_customer_whose_address_was_changed_is_adopted(
    bench: Bench, database: Database
) -> None:
    """Search finds it by metadata."""
    data = await unfinished(bench, "reset", "after")
    (customer,) = bench.stripe.customers(data.user_id)
    account = bench.stripe.account
    account.customers.update(customer["id"], {"email": "new@example.com"}, account.clock.now())
    bench.advance(hours=21)

    await bench.provisioner.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1


@pytest.mark.parametrize("address", [None, "new@example.com"])
async def test_a_customer_without_its_address_is_adopted_while_search_lags(
    bench: Bench, database: Database, address: str | None
) -> None:
    """The list of that time finds it; a list by the kept address would miss it."""
    data = await unfinished(bench, "server_error", "after")
    (customer,) = bench.stripe.customers(data.user_id)
    account = bench.stripe.account
    account.customers.update(customer["id"], {"email": address}, account.clock.now())
    bench.stripe.set_options(search_lag_seconds=3600.0)

    await bench.provisioner.provision(data.user_id)

    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert len(bench.stripe.requests("POST")) == 1


async def test_an_unknown_call_without_effect_is_repeated_with_a_new_key(
    bench: Bench, database: Database
) -> None:
    """The look-up finds nothing; a customer of another user is not adopted."""
    data = user()
    other = {"email": data.email, "metadata": {"user_id": str(user().user_id)}}
    bench.stripe.account.customers.create(other, bench.stripe.account.clock.now())
    await bench.keep(data)
    bench.stripe.inject("reset", when="before")
    with pytest.raises(TransientError):
        await bench.provisioner.provision(data.user_id)
    bench.advance(hours=25)

    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    last = bench.stripe.requests("POST")[-1]
    assert last["idempotency_key"] == f"customer-create:{data.user_id}:1:2"
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]


@pytest.mark.parametrize("search_lag", [0.0, 3600.0])
@pytest.mark.parametrize(("when", "last"), [("after", "adopted"), ("before", "created")])
async def test_a_500_is_followed_by_a_look_up_before_a_new_key(
    bench: Bench, database: Database, when: str, last: str, search_lag: float
) -> None:
    """Stripe repeats a 500 under its key, with or without an effect; the list shows which."""
    data = user()
    await bench.keep(data)
    bench.stripe.set_options(search_lag_seconds=search_lag)
    bench.stripe.inject("server_error", when=when)

    with pytest.raises(KeySpentError):
        await bench.provisioner.provision(data.user_id)
    await bench.provisioner.provision(data.user_id)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (await profile_of(database, data)).stripe_customer_id == customer["id"]
    assert (await steps_of(database, data))[-1] == last


@pytest.mark.parametrize("lag", [3600.0, 0.0])
async def test_a_customer_that_became_another_user_s_is_not_adopted(
    bench: Bench, database: Database, lag: float
) -> None:
    """By its mark, though search lags and still has the former one; or by our table."""
    owner, data = user(), await unfinished(bench, "server_error", "before")
    await bench.keep(owner)
    customer_id, account = await bench.provisioner.provision(owner.user_id), bench.stripe.account
    bench.stripe.set_options(search_lag_seconds=lag)
    for user_id in (data.user_id, owner.user_id)[: 2 if lag else 1]:
        marked = {"metadata": {"user_id": str(user_id)}}
        account.customers.update(customer_id, marked, account.clock.now())
        account.clock.advance(lag / 2 + 1)

    if lag:
        assert await bench.provisioner.provision(data.user_id) != customer_id
        return
    with pytest.raises(LinkRefusedError, match="by our table"):
        await bench.provisioner.provision(data.user_id)
    assert (await profile_of(database, data)).refused_as == LinkFault.TAKEN.value
