"""Stripe out of reach, or something else that answers for it: nobody is refused, calls pause."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.circuit import OUTAGE_FROM, Circuit
from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import State
from customer_provisioner.stripe_api import StripeApi, StripeUnavailableError
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.errors import TransientError
from nexus_messaging.topology import USER_CREATED_QUEUE
from rig.vhost import Vhost
from rig.waiting import eventually
from stripe_emulator.running import DEFAULT_KEY

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
async def test_a_gateways_answer_refuses_nobody(
    bench: Bench, database: Database, status: int
) -> None:
    """Whatever it says, the user is provisioned by the next attempt, under the same key."""
    for body in BODIES:
        data = user()
        await bench.keep(data)
        bench.stripe.befall("foreign", status=status, body=body)
        with pytest.raises(TransientError):
            await bench.provisioning.provision(data.user_id)

        await bench.provisioning.provision(data.user_id)

        profile = await Inquiries(database).find(data.user_id)
        assert profile is not None
        assert (profile.state, profile.refused_as, profile.key_n) == (State.PROVISIONED, None, 1)


async def test_a_gateways_answer_to_a_look_up_finds_nobody_missing(bench: Bench) -> None:
    """Its 404 is not Stripe's: no second customer is made on its word."""
    data = user()
    await bench.keep(data)
    bench.stripe.befall("reset", when="after")
    with pytest.raises(TransientError):
        await bench.provisioning.provision(data.user_id)
    bench.advance(hours=25)
    for path in ("/v1/customers/search", "/v1/customers/cus"):
        bench.stripe.befall("foreign", method="GET", path_prefix=path, status=404, body=BODIES[0])
        with pytest.raises(TransientError):
            await bench.provisioning.provision(data.user_id)

    await bench.provisioning.provision(data.user_id)

    assert len(bench.stripe.customers(data.user_id)) == 1
    assert len(bench.stripe.requests("POST")) == 1


async def kept(bench: Bench, users: int) -> list[UserCreated]:
    """Keep so many users."""
    people = [user() for _ in range(users)]
    for data in people:
        await bench.keep(data)
    return people


@pytest.mark.parametrize("fault", ["reset", "html_503", "foreign"])
async def test_silence_for_several_users_pauses_the_calls(bench: Bench, fault: str) -> None:
    """Those that come then cost neither a call nor an attempt."""
    people = await kept(bench, OUTAGE_FROM + 3)
    bench.stripe.befall(fault, times=None)

    errors = await asyncio.gather(
        *(bench.provisioning.provision(each.user_id) for each in people[:OUTAGE_FROM]),
        return_exceptions=True,
    )
    for data in people[OUTAGE_FROM:]:
        with pytest.raises(StripeUnavailableError):
            await bench.provisioning.provision(data.user_id)

    assert sum(isinstance(error, StripeUnavailableError) for error in errors) == 1
    assert len(bench.stripe.requests("POST")) == OUTAGE_FROM


async def test_after_the_pause_one_call_tries_and_all_go_on(stripe: Stripe) -> None:
    """The circuit closes with the first answer of Stripe's."""
    api = StripeApi(DEFAULT_KEY, stripe.url, Metrics(CollectorRegistry()))
    for number in range(OUTAGE_FROM):
        api._circuit = api._circuit.unanswered(str(number), 0.0)
    assert await api.remark() == "the circuit is open for outage: users wait"

    await api.fate("cus_any")

    assert api._circuit == Circuit()
    assert await api.remark() is None
    await api.close()


async def test_a_key_that_cannot_be_sent_is_named(stripe: Stripe) -> None:
    """As `check` shows it; nothing of the key is shown."""
    api = StripeApi(f"{DEFAULT_KEY}\n", stripe.url, Metrics(CollectorRegistry()))

    with pytest.raises(TransientError, match=r"the key holds .* can't be sent") as raised:
        await api.fate("cus_check")

    assert DEFAULT_KEY not in str(raised.value)
    await api.close()


async def test_an_outage_dead_letters_nobody(
    vhost: Vhost, stripe: Stripe, spawn: Spawn, environment: dict[str, str]
) -> None:
    """A gateway answers for Stripe; once it is gone, every user has one customer."""
    people = [user() for _ in range(20)]
    stripe.befall("foreign", status=407, body=BODIES[-1], times=None)
    service = spawn(environment)
    await start(service)

    await vhost.publish(*(created(data) for data in people))
    await stripe.asked("POST", OUTAGE_FROM)
    stripe.account.faults.remove()

    async def served() -> int:
        return sum(len(stripe.customers(data.user_id)) for data in people)

    await eventually(served, lambda customers: customers == len(people), within=60)
    assert await vhost.dead_letters(USER_CREATED_QUEUE) == []
    assert [len(stripe.customers(data.user_id)) for data in people] == [1] * len(people)
