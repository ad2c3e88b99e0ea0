"""Stripe's webhooks over HTTP: what becomes a message, and what each request is answered with."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import pytest
import stripe
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from nexus_contracts import Event, StripeChanged, read_event
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import STRIPE_CHANGED_QUEUE
from nexus_service import request_bodies
from nexus_stripe.webhooks import MAX_WEBHOOK_BYTES, PATH, WebhookMetrics, WebhookRoutes
from stripe_emulator import DEFAULT_KEY, RunningEmulator, running_emulator
from stripe_emulator.options import Options
from support.http_servers import serve_routes
from support.stripe_webhooks import WEBHOOK_SECRET, all_delivered, webhooks_to
from support.vhost import Vhost
from support.waiting import eventually

SECRET, NEXT_SECRET = WEBHOOK_SECRET, "whsec_of_tomorrow"
SERVICE = "customer-provisioner"
PERSON = "ada.lovelace@example.com"
JSON = {"Content-Type": "application/json; charset=utf-8"}


class Endpoint:
    """The webhook endpoint of a service of test mode."""

    def __init__(self, url: str, registry: CollectorRegistry) -> None:
        self.url = url
        self._registry = registry

    async def post(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Send a request as it is; return status and body of the answer."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}{PATH}", data=body, headers=JSON | (headers or {})) as answer,
        ):
            return answer.status, await answer.text()

    async def send(self, event: Any, secret: str = SECRET, age: float = 0) -> tuple[int, str]:
        """Send an event as Stripe does, signed."""
        body = json.dumps(event, indent=2)
        return await self.post(body, {"Stripe-Signature": signature(body, secret, age)})

    def counted(self, outcome: str) -> float:
        """Return how many requests had an outcome."""
        name = "customer_provisioner_stripe_webhooks_total"
        return self._registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def signature(body: str, secret: str = SECRET, age: float = 0) -> str:
    """Return Stripe's signature of a body."""
    made = int(time.time() - age)
    return str(stripe.WebhookSignature.generate_signature_header(body, secret, made))


def updated(**changes: Any) -> dict[str, Any]:
    """Return the event of a changed subscription."""
    subscription = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "name": PERSON}
    return {
        "id": "evt_1",
        "object": "event",
        "created": int(time.time()) - 3,
        "data": {"object": subscription},
        "livemode": False,
        "type": "customer.subscription.updated",
        **changes,
    }


@asynccontextmanager
async def endpoint(
    publisher: Callable[[], Publisher], *, livemode: bool = False
) -> AsyncIterator[Endpoint]:
    """Serve the endpoint with both secrets."""
    registry = CollectorRegistry()
    routes = WebhookRoutes(
        SERVICE,
        [SecretStr(SECRET), SecretStr(NEXT_SECRET)],
        livemode=livemode,
        wanted=("customer.deleted", "customer.subscription.*", "v1.billing.meter.*"),
        publisher=publisher,
        metrics=WebhookMetrics(registry, service=SERVICE),
        now=utc_now,
    )
    async with serve_routes(*routes.routes()) as url:
        yield Endpoint(url, registry)


@pytest.fixture
async def publisher(vhost: Vhost) -> AsyncIterator[Publisher]:
    """A publisher with the service's own rights."""
    connected = await Publisher.connect(vhost.url(SERVICE), name="test")
    yield connected
    await connected.close()


@pytest.fixture
async def served(publisher: Publisher) -> AsyncIterator[Endpoint]:
    """The endpoint with a connected publisher."""
    async with endpoint(lambda: publisher) as one:
        yield one


async def queued(vhost: Vhost) -> list[Event[StripeChanged]]:
    """Return the messages in the queue."""
    messages = await vhost.peek(STRIPE_CHANGED_QUEUE)
    return [read_event(message.body, [StripeChanged]) for message in messages]


async def test_a_webhook_is_a_message_once_it_is_answered(served: Endpoint, vhost: Vhost) -> None:
    """It has ids, type and mode, and nothing else of the object."""
    status, answer = await served.send(updated())

    [event] = await queued(vhost)
    assert (status, json.loads(answer)) == (200, {"outcome": "published"})
    assert (event.data.event_id, event.data.object_id) == ("evt_1", "sub_1")
    assert (event.data.customer_id, event.data.livemode) == ("cus_1", False)
    assert PERSON.encode() not in event.body()
    assert served.counted("published") == 1


async def test_an_event_that_stripe_repeats_has_one_id(served: Endpoint, vhost: Vhost) -> None:
    """Whoever consumes it can see that it is the same."""
    event = updated()
    await served.send(event)
    await served.send(event, NEXT_SECRET)
    await served.send(updated(id="evt_2"))

    first, second, other = await queued(vhost)
    assert first.id == second.id != other.id


async def test_a_thin_event_is_a_message_too(served: Endpoint, vhost: Vhost) -> None:
    """It names the object that it is about."""
    related = {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-03-01T12:34:56.000Z",
        "livemode": False,
        "related_object": related,
    }

    status, _ = await served.send(thin)

    [event] = await queued(vhost)
    assert (status, event.data.object_id, event.data.customer_id) == (200, "mtr_1", None)


async def test_an_unwanted_type_is_answered_and_not_published(
    served: Endpoint, vhost: Vhost
) -> None:
    """Otherwise Stripe would repeat it for three days."""
    status, _ = await served.send(updated(type="invoice.paid"))

    assert (status, served.counted("ignored")) == (200, 1)
    assert await vhost.depth(STRIPE_CHANGED_QUEUE) == 0


@pytest.mark.parametrize(
    ("livemode", "event"), [(False, updated(livemode=True)), (True, updated())]
)
async def test_an_event_of_the_other_mode_is_refused(
    publisher: Publisher,
    vhost: Vhost,
    livemode: bool,  # noqa: FBT001 - a case
    event: dict[str, Any],
) -> None:
    """A test-mode subscription must not give anybody a plan in live mode."""
    async with endpoint(lambda: publisher, livemode=livemode) as one:
        status, _ = await one.send(event)

        assert (status, one.counted("other_mode")) == (403, 1)
    assert await vhost.depth(STRIPE_CHANGED_QUEUE) == 0


async def test_what_stripe_did_not_sign_is_refused(served: Endpoint, vhost: Vhost) -> None:
    """By another secret, too long ago, for another body, or not at all."""
    body = json.dumps(updated())
    altered = {"Stripe-Signature": signature(body)}

    answers = [
        await served.send(updated(), "whsec_other"),
        await served.send(updated(), age=400),
        await served.post(body + " ", altered),
        await served.post(body),
    ]

    assert [status for status, _ in answers] == [400] * 4
    assert all(PERSON not in answer and SECRET not in answer for _, answer in answers)
    counts = [served.counted(each) for each in ("forged", "outdated", "unsigned")]
    assert counts == [2, 1, 1]
    assert await vhost.depth(STRIPE_CHANGED_QUEUE) == 0


async def test_a_request_that_stripe_would_not_make_is_refused(
    served: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another media type, compressed, too large, too slow, or signed nonsense."""
    monkeypatch.setattr(request_bodies, "BODY_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answers = [
        await served.post("{}", {"Content-Type": "text/plain"}),
        await served.post("{}", {"Content-Encoding": "gzip"}),
        await served.post(BytesIO(bytes(MAX_WEBHOOK_BYTES + 1))),
        await served.post(slow()),
        await served.send({"object": "event"}),
    ]

    assert [status for status, _ in answers] == [415, 415, 413, 408, 400]
    assert served.counted("unreadable") == 5


async def test_without_the_broker_stripe_is_asked_to_repeat() -> None:
    """Nothing is kept, so nothing may be confirmed."""

    def away() -> Publisher:
        raise PublishError("the broker has not been reached yet")

    async with endpoint(away) as one:
        status, answer = await one.send(updated())

        assert (status, json.loads(answer)["code"]) == (503, "broker_unavailable")
        assert one.counted("unconfirmed") == 1


async def test_without_its_queue_stripe_is_asked_to_repeat(served: Endpoint, vhost: Vhost) -> None:
    """A message that is routed nowhere is not confirmed; it is taken once the queue is back."""
    await vhost.ask("DELETE", f"queues/{{vhost}}/{STRIPE_CHANGED_QUEUE}")
    status, _ = await served.send(updated())
    await vhost.create(tier_scale=1)
    again, _ = await served.send(updated())

    assert (status, again) == (503, 200)
    assert len(await queued(vhost)) == 1


async def test_without_a_secret_there_is_no_endpoint(publisher: Publisher) -> None:
    """Nobody could prove to be Stripe."""
    metrics = WebhookMetrics(CollectorRegistry(), service=SERVICE)
    routes = WebhookRoutes(
        SERVICE,
        [],
        livemode=False,
        wanted=(),
        publisher=lambda: publisher,
        metrics=metrics,
        now=utc_now,
    )

    assert routes.routes() == []


@pytest.fixture
async def emulator() -> AsyncIterator[RunningEmulator]:
    """The local Stripe, which repeats within a second what was not taken."""
    options = Options(webhook_retry_scale=0.001)
    async with running_emulator(options=options) as running:
        yield running


async def test_what_was_not_taken_comes_again(
    served: Endpoint, vhost: Vhost, emulator: RunningEmulator
) -> None:
    """While the queue is gone Stripe is refused; afterwards every event is in it."""
    customers = emulator.account.customers
    async with webhooks_to(served.url, emulator.url) as stripe_side:
        ids = [customers.create({}, emulator.account.clock.now())["id"] for _ in range(3)]
        await all_delivered(stripe_side, 3)  # of a type that nobody wants
        await vhost.ask("DELETE", f"queues/{{vhost}}/{STRIPE_CHANGED_QUEUE}")
        for id_ in ids:
            customers.delete(id_, emulator.account.clock.now())
        await eventually(lambda: _number(served.counted("unconfirmed")), lambda n: n >= 3)
        await vhost.create(tier_scale=1)
        deliveries = await all_delivered(stripe_side, 6)

    assert {event.data.object_id for event in await queued(vhost)} == set(ids)
    statuses = [[each["status"] for each in one["attempts"]] for one in deliveries[3:]]
    assert all(set(each[:-1]) == {503} and each[-1] == 200 for each in statuses)


async def test_events_of_a_subscription_are_messages(
    served: Endpoint, vhost: Vhost, emulator: RunningEmulator
) -> None:
    """As Stripe sends them: twice, and the later change first."""
    http = stripe.AIOHTTPClient(timeout=10)
    sdk: Any = stripe.StripeClient(
        DEFAULT_KEY, base_addresses={"api": emulator.url}, http_client=http
    )
    product = await sdk.v1.products.create_async({"name": "Pro"})
    price = await sdk.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1900,
            "recurring": {"interval": "month"},
        }
    )
    customer = await sdk.v1.customers.create_async({"email": PERSON})

    async with webhooks_to(served.url, emulator.url) as stripe_side:
        await stripe_side.add_webhook_fault("held", times=None)
        made = await sdk.v1.subscriptions.create_async(
            {"customer": customer.id, "items": [{"price": price.id}]}
        )
        await sdk.v1.subscriptions.cancel_async(made.id)
        first, last = await stripe_side.webhooks()
        await stripe_side.release_webhooks(last["id"], first["id"])
        await stripe_side.resend_webhook(last["event"])
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK left it untyped

    events = await queued(vhost)
    assert [event.data.event_type.rpartition(".")[2] for event in events] == [
        "deleted",
        "created",
        "deleted",
    ]
    assert {(event.data.object_id, event.data.customer_id) for event in events} == {
        (made.id, customer.id)
    }
    assert events[0].id == events[2].id != events[1].id


async def _number(value: float) -> float:
    return value


async def test_no_request_is_an_error_of_ours_or_shows_what_it_holds(served: Endpoint) -> None:
    """Hundreds of requests with something wrong, signed and not, from a seed."""
    source = random.Random(14)  # noqa: S311 - mutations
    known = json.dumps(updated())
    with capture_logs() as logs:
        for _ in range(300):
            body = mutated(known, source)
            header = signature(body) if source.random() < 0.7 else mutated("t=1,v1=ab", source)
            header = header.replace("\x7f", " ")
            status, answer = await served.post(
                body.encode("utf-8", "surrogatepass"), {"Stripe-Signature": header}
            )

            assert status in {200, 400, 403}, (body, header)
            assert PERSON not in answer

    assert PERSON not in str(logs)


def mutated(text: str, source: random.Random) -> str:
    """Return a text with a part removed, repeated or replaced."""
    begin = source.randrange(len(text))
    end = min(len(text), begin + source.randrange(1, 20))
    strange = source.choice(["", text[begin:end] * 2, "null", "-1", "é", "[", '"', "1e999", "\x7f"])
    return text[:begin] + strange + text[end:]
