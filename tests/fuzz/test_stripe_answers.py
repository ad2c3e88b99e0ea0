"""Random answers through both services' adapters: only Stripe's own refusals refuse."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.circuit import CircuitBreaker, StripeKeyRefusedError
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Attempt, Create, Link, LookUp
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from fuzz.answers import WireAnswer, random_answer
from nexus_messaging.errors import PermanentError, TransientError
from nexus_stripe import calls
from nexus_stripe.answer_classes import Effect
from nexus_stripe.meters import Meter
from stripe_reporter.reports import Facts, Report
from stripe_reporter.stripe.api import StripeApi as Reporter
from stripe_reporter.stripe.responses import Next, response_to
from support.http_servers import raw_server

SEED = int(os.environ.get("NEXUS_TEST_SEED", "20261129"))
ANSWERS = int(os.environ.get("NEXUS_TEST_ANSWERS", "300"))
"""The number of answers, each to every call of both services; 10,000 take some minutes."""

KEY = "sk_test_key"
REPORT = Report(
    "r-1", Facts(uuid4(), "cus_1", "tool_call_executed", 1, datetime(2026, 1, 1, tzinfo=UTC))
)
CREATE = Create(Attempt(uuid4(), 1, 1), "key", {"email": "a@example.com"})
LINK = Link(CREATE.attempt, "key", "cus_1")
LOOK_UP = LookUp(CREATE.attempt, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))

pytestmark = pytest.mark.timeout(3600)


class Stripe:
    """A server that gives ``answer`` to every request."""

    def __init__(self) -> None:
        self.answer = WireAnswer(200, b"", refusal=False)

    def respond(self, _line: bytes) -> bytes:
        """Return the current answer."""
        return self.answer.bytes


Adapters = tuple[Stripe, Reporter, StripeCalls]


@pytest.fixture
async def adapters(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Adapters]:
    """Return a server and both adapters that call it, with timeouts for a busy machine."""
    monkeypatch.setattr(calls, "CONNECT_TIMEOUT", 60.0)
    monkeypatch.setattr(calls, "CALL_TIMEOUT", 120.0)
    stripe = Stripe()
    async with (
        raw_server(stripe.respond) as base,
        Reporter(KEY, base) as reporter,
        StripeCalls(KEY, base, Metrics(CollectorRegistry())) as provisioner,
    ):
        yield stripe, reporter, provisioner


async def test_random_answer_is_a_refusal_or_an_outage(adapters: Adapters) -> None:
    """No adapter raises another error; only a complete refusal of Stripe's own refuses."""
    print(f"NEXUS_TEST_SEED={SEED} NEXUS_TEST_ANSWERS={ANSWERS}")
    rng = random.Random(SEED)  # noqa: S311 - repeatable by seed, no secret
    stripe, reporter, provisioner = adapters
    seen: Counter[str] = Counter()
    for _ in range(ANSWERS):
        stripe.answer = random_answer(rng)
        seen.update([await _reported(reporter, stripe.answer)])
        seen.update([await _provisioned(provisioner, stripe.answer)])

    print(dict(seen))
    assert seen["reporter: refused"]
    assert seen["reporter: unreadable"]
    assert seen["provisioner: refused"]
    assert seen["provisioner: waits"]


async def _reported(reporter: Reporter, wire: WireAnswer) -> str:
    answer = await reporter.send(REPORT, 1)
    listed, meters = await reporter.active_meters()
    made = await reporter.create_meter(Meter("m"), "M")

    response = response_to(answer)
    assert meters == []
    assert not answer.success, wire
    assert not made.success, wire
    assert (answer.receipt, answer.status) == (listed.receipt, listed.status), (wire, listed)
    if wire.refusal:
        assert response.name not in {"lost", "unreadable", "never_sent"}, wire
        return "reporter: refused"
    assert response.effect is Effect.UNKNOWN, wire
    assert response.next is Next.WAIT, wire
    return f"reporter: {response.name}"


async def _provisioned(provisioner: StripeCalls, wire: WireAnswer) -> str:
    customers, subscriptions = StripeApi(provisioner), SubscriptionApi(provisioner)
    errors: list[Exception] = []
    adapters: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: customers.create(CREATE),
        lambda: customers.link(LINK),
        lambda: customers.retrieve("cus_1"),
        lambda: customers.find(LOOK_UP),
        lambda: subscriptions.fetch("sub_1"),
        lambda: subscriptions.page(None),
    )
    for call in adapters:
        provisioner._breaker = CircuitBreaker()
        try:
            result = await call()
        except (TransientError, PermanentError, StripeKeyRefusedError) as error:
            errors.append(error)
        else:
            assert wire.refusal, (wire, result)
    if wire.refusal:
        return "provisioner: refused"
    kinds = {type(error) for error in errors}
    assert kinds == {TransientError}, (kinds, wire)
    return "provisioner: waits"
