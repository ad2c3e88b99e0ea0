"""Stripe does not respond, or a gateway answers for it: no user is refused, calls pause."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.circuit import (
    FAILURE_THRESHOLD,
    CircuitBreaker,
    StripeUnavailableError,
)
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import State
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.errors import TransientError
from nexus_messaging.topology import USER_CREATED_QUEUE
from stripe_emulator.running import DEFAULT_KEY
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import Bench, Spawn, Stripe, created, start, user

BODIES = (
    '{"error": "forbidden"}',
    '{"error": [], "message": "no"}',
    '{"error": {"message": 7, "type": {"a": 1}}}',
    '{"error": {"type": "invalid_request_error", "message": "refused"}}',
    '{"message": "Unauthorized"}',
    "<html>407 Proxy Authentication Required</html>",
)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 407, 409, 429, 500, 503])
async def test_a_gateways_answer_refuses_no_user(
    bench: Bench, database: Database, status: int
) -> None:
    """The next attempt provisions the user under the same key."""
    for body in BODIES:
        data = user()
        await bench.keep(data)
        bench.stripe.inject("foreign", status=status, body=body)
        with pytest.raises(TransientError):
            await bench.provisioner.provision(data.user_id)

        await bench.provisioner.provision(data.user_id)

        profile = await ProfileReader(database).find(data.user_id)
        assert profile is not None
        assert (profile.state, profile.refused_as, profile.key_n) == (State.PROVISIONED, None, 1)


async def test_a_gateways_404_to_a_look_up_makes_no_second_customer(bench: Bench) -> None:
    """Only Stripe's own 404 says that there is no customer."""
    data = user()
    await bench.keep(data)
    bench.stripe.inject("reset", when="after")
    with pytest.raises(TransientError):
        await bench.provisioner.provision(data.user_id)
    bench.advance(hours=25)
    for path in ("/v1/customers/search", "/v1/customers/cus"):
        bench.stripe.inject("foreign", method="GET", path_prefix=path, status=404, body=BODIES[0])
        with pytest.raises(TransientError):
            await bench.provisioner.provision(data.user_id)

    await bench.provisioner.provision(data.user_id)

    assert len(bench.stripe.customers(data.user_id)) == 1
    assert len(bench.stripe.requests("POST")) == 1


async def stored_users(bench: Bench, users: int) -> list[UserCreated]:
    """Store so many users."""
    stored = [user() for _ in range(users)]
    for data in stored:
        await bench.keep(data)
    return stored


@pytest.mark.parametrize("fault", ["reset", "html_503", "foreign"])
async def test_several_users_without_response_open_the_breaker(bench: Bench, fault: str) -> None:
    """Further users cost neither a call nor an attempt."""
    new_users = await stored_users(bench, FAILURE_THRESHOLD + 3)
    bench.stripe.inject(fault, times=None)

    errors = await asyncio.gather(
        *(bench.provisioner.provision(each.user_id) for each in new_users[:FAILURE_THRESHOLD]),
        return_exceptions=True,
    )
    for data in new_users[FAILURE_THRESHOLD:]:
        with pytest.raises(StripeUnavailableError):
            await bench.provisioner.provision(data.user_id)

    assert sum(isinstance(error, StripeUnavailableError) for error in errors) == 1
    assert len(bench.stripe.requests("POST")) == FAILURE_THRESHOLD


async def test_a_response_to_the_trial_call_closes_the_breaker(stripe: Stripe) -> None:
    """Any response from Stripe does."""
    calls = StripeCalls(DEFAULT_KEY, stripe.url, Metrics(CollectorRegistry()))
    for number in range(FAILURE_THRESHOLD):
        calls._breaker = calls._breaker.unanswered(str(number), 0.0)
    assert await calls.remark() == "circuit breaker open (outage): users wait"

    await StripeApi(calls).retrieve("cus_any")

    assert calls._breaker == CircuitBreaker()
    assert await calls.remark() is None
    await calls.close()


async def test_an_outage_dead_letters_no_user(
    vhost: Vhost, stripe: Stripe, spawn: Spawn, environment: dict[str, str]
) -> None:
    """A gateway answers for Stripe; after it is gone, every user gets one customer."""
    new_users = [user() for _ in range(20)]
    stripe.inject("foreign", status=407, body=BODIES[-1], times=None)
    service = spawn(environment)
    await start(service)

    await vhost.publish(*(created(data) for data in new_users))
    await stripe.wait_for("POST", FAILURE_THRESHOLD)
    stripe.account.faults.remove()

    async def customers_made() -> int:
        return sum(len(stripe.customers(data.user_id)) for data in new_users)

    await eventually(customers_made, lambda customers: customers == len(new_users), within=60)
    assert await vhost.dead_letters(USER_CREATED_QUEUE) == []
    assert [len(stripe.customers(data.user_id)) for data in new_users] == [1] * len(new_users)
