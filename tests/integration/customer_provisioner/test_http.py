"""The answers of the HTTP API, with a real broker and database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from customer_provisioner.http import CustomerRoutes
from customer_provisioner.http_requests import Admission
from customer_provisioner.storage.reader import ProfileReader
from local_stack.ports import LOOPBACK, free_ports
from nexus_contracts import UserCreated, UserCreatedV2, read_event
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import USER_CREATED_QUEUE
from nexus_service.api_keys import read_api_keys
from nexus_service.http import serving
from nexus_service.rate_limit import RateLimiter
from support.vhost import Vhost

from .conftest import API_KEY, API_KEYS, Bench, user

TOOLS_KEY = "a key for tool runs only"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(frozen=True)
class Caller:
    """A client of the HTTP API."""

    url: str

    async def request(
        self, method: str, path: str, body: str | None = None, *, key: str | None = API_KEY
    ) -> tuple[int, Any]:
        """Send a request; return the answer's status and body."""
        headers = {"Content-Type": "application/json", "traceparent": TRACE}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{self.url}{path}", data=body) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def send_raw(self, text: bytes) -> tuple[int, bytes]:
        """Send the lines of a request unchanged; ``|`` separates them, and the body is the last."""
        line, *headers, body = text.split(b"|")
        known = [
            b"Authorization: Bearer " + API_KEY.encode() if h == b"KEY" else h for h in headers
        ]
        head = [line + b" HTTP/1.1", b"Host: x", b"Connection: close", *known]
        length = b"Content-Length: %d" % len(body)
        address = URL(self.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"\r\n".join([*head, length, b"", body]))
        status = await reader.readline()
        answer = await reader.read()
        writer.close()
        return int(status.split()[1]), answer


@pytest.fixture
async def caller(
    publisher: Publisher, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Caller]:
    """Yield a client of the API while no service is running."""
    monkeypatch.setattr("customer_provisioner.http_requests.WAIT_SECONDS", 0.3)
    configured = f"{API_KEYS},tools:{sha256(TOOLS_KEY.encode()).hexdigest()}:*:tool.executed"
    keys: Any = read_api_keys(configured)
    admission = Admission(keys, RateLimiter(1.0, 100.0, lambda: 0.0))
    customers = CustomerRoutes(admission, ProfileReader(database), lambda: publisher, utc_now)
    (port,) = free_ports(None)
    registry = CollectorRegistry()
    async with serving(
        LOOPBACK, port, registry, health={}, readiness={}, routes=customers.routes()
    ):
        yield Caller(f"http://{LOOPBACK}:{port}")


async def test_a_post_publishes_user_created(caller: Caller, vhost: Vhost) -> None:
    """202 until there is a customer; the event has the key's source and the request's trace."""
    data = user(name="Ada")

    status, answer = await caller.request("POST", "/v1/customers", data.model_dump_json())

    (message,) = await vhost.peek(USER_CREATED_QUEUE)
    event = read_event(message.body, [UserCreated])
    assert (status, answer) == (202, {"user_id": str(data.user_id), "state": "provisioning"})
    assert event.data == data
    assert (event.source, event.traceparent) == ("hub", TRACE)
    assert message.message_id == str(event.id)


async def test_a_post_for_a_user_with_a_customer_publishes_nothing(
    caller: Caller, bench: Bench, vhost: Vhost
) -> None:
    """200 with the customer from the row, without the address."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)

    status, answer = await caller.request("POST", "/v1/customers", data.model_dump_json())
    shown = await caller.request("GET", f"/v1/customers/{data.user_id}")

    (customer,) = bench.stripe.customers(data.user_id)
    assert (status, answer) == shown
    assert status == 200
    assert answer == {
        "user_id": str(data.user_id),
        "state": "provisioned",
        "stripe_customer_id": customer["id"],
        "generation": 1,
    }
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_a_post_with_a_customer_publishes_a_link(caller: Caller, vhost: Vhost) -> None:
    """In version 2, also for a user without an address."""
    data = UserCreatedV2(user_id=uuid4(), stripe_customer_id="cus_existing")

    status, _answer = await caller.request("POST", "/v1/customers", data.model_dump_json())

    (message,) = await vhost.peek(USER_CREATED_QUEUE)
    assert status == 202
    assert read_event(message.body, [UserCreatedV2]).data == data


async def test_a_user_with_another_customer_is_409(
    caller: Caller, bench: Bench, vhost: Vhost
) -> None:
    """Nothing is published, and the customer stays; the same one is no conflict."""
    data = user()
    await bench.keep(data)
    mine = await bench.provisioner.provision(data.user_id)

    def linking(customer_id: str) -> str:
        wanted = UserCreatedV2(user_id=data.user_id, stripe_customer_id=customer_id)
        return wanted.model_dump_json()

    refused = await caller.request("POST", "/v1/customers", linking("cus_another"))
    same = await caller.request("POST", "/v1/customers", linking(mine))

    assert (refused[0], refused[1]["code"]) == (409, "other_customer")
    assert (same[0], same[1]["stripe_customer_id"]) == (200, mine)
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_a_refused_user_is_shown_with_the_reason(caller: Caller, bench: Bench) -> None:
    """202 with Stripe's refusal, without the address."""
    data = UserCreated.model_construct(user_id=uuid4(), email="bad address", name=None)
    await bench.keep(data)
    with pytest.raises(PermanentError):
        await bench.provisioner.provision(data.user_id)

    status, answer = await caller.request("GET", f"/v1/customers/{data.user_id}")

    assert status == 202
    assert "param email" in answer["refused_as"]
    assert "bad address" not in str(answer)


async def test_an_unknown_user_is_not_found(caller: Caller) -> None:
    """404, whether the id is a UUID or not."""
    for user_id in (str(uuid4()), "x"):
        answer = await caller.request("GET", f"/v1/customers/{user_id}")

        assert (answer[0], answer[1]["code"]) == (404, "not_found")


async def test_without_a_key_both_routes_are_401(caller: Caller, vhost: Vhost) -> None:
    """And nothing is published."""
    body = user().model_dump_json()
    for key in (None, "wrong", "ü"):
        posted = await caller.request("POST", "/v1/customers", body, key=key)
        got = await caller.request("GET", f"/v1/customers/{uuid4()}", key=key)

        assert posted == got
        assert (got[0], got[1]["code"]) == (401, "unauthorized")

    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_a_key_for_other_events_creates_no_user(caller: Caller, vhost: Vhost) -> None:
    """403: the key is valid, but does not allow `user.created`."""
    status, answer = await caller.request(
        "POST", "/v1/customers", user().model_dump_json(), key=TOOLS_KEY
    )

    assert (status, answer["code"]) == (403, "forbidden")
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


INVALID = {
    "": "body: is not JSON",
    "[]": "body: must be an object",
    '{"user_id": "x", "email": "secret"}': "email: must be an e-mail address",
    f'{{"user_id": "{uuid4()}", "email": "secret@x.com", "name": 1}}': "name: must be text",
}


async def test_an_invalid_user_is_refused_by_field_and_rule(caller: Caller, vhost: Vhost) -> None:
    """400 names what is wrong and shows no value."""
    for body, wrong in INVALID.items():
        status, answer = await caller.request("POST", "/v1/customers", body)

        assert (status, answer["code"]) == (400, "invalid")
        assert wrong in [f"{each['field']}: {each['rule']}" for each in answer["errors"]]
        assert "secret" not in str(answer)

    assert await vhost.depth(USER_CREATED_QUEUE) == 0


JSON = b"Content-Type: application/json|"
MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "key of no UTF-8": (
        b"POST /v1/customers|Authorization: Bearer \xff\xfe|{}",
        401,
        "unauthorized",
    ),
    "key without end": (
        b"POST /v1/customers|Authorization: Bearer " + b"k" * 7000 + b"|{}",
        401,
        "",
    ),
    "scheme of no UTF-8": (b"POST /v1/customers|Authorization: \xff x|{}", 401, "unauthorized"),
    "trace of no UTF-8": (
        b"POST /v1/customers|KEY|traceparent: \xff|" + JSON + b"{}",
        400,
        "invalid",
    ),
    "body too large": (b"POST /v1/customers|KEY|" + JSON + b" " * 300_000, 413, "too_large"),
    "body of no UTF-8": (b"POST /v1/customers|KEY|" + JSON + b'{"email": "\xff"}', 400, "invalid"),
    "body in UTF-16": (b"POST /v1/customers|KEY|" + JSON + b"\xff\xfe{\x00}\x00", 400, "invalid"),
    "body nested": (b"POST /v1/customers|KEY|" + JSON + b"[" * 100_000, 400, "invalid"),
    "a form": (
        b"POST /v1/customers|KEY|Content-Type: application/x-www-form-urlencoded|a=b",
        415,
        "unsupported_media_type",
    ),
    "no media type": (b"POST /v1/customers|KEY|{}", 415, "unsupported_media_type"),
    "an unknown charset": (
        b"POST /v1/customers|KEY|Content-Type: application/json; charset=none\xff|{}",
        415,
        "unsupported_media_type",
    ),
    "gzip": (
        b"POST /v1/customers|KEY|Content-Encoding: gzip|" + JSON + b"{}",
        415,
        "unsupported_media_type",
    ),
    "path of no UTF-8": (b"GET /v1/customers/%ff%fe|KEY|", 404, "not_found"),
    "path of a null": (b"GET /v1/customers/%00|KEY|", 404, "not_found"),
    "path of raw bytes": (b"GET /v1/customers/\xff|KEY|", 400, ""),
    "path of surrogates": (b"GET /v1/customers/%ed%a0%80|KEY|", 404, "not_found"),
    "path too long": (b"GET /v1/customers/" + b"a" * 10_000 + b"|KEY|", 400, ""),
    "another method": (b"DELETE /v1/customers|KEY|", 405, ""),
}


async def test_a_malformed_request_is_a_4xx(caller: Caller, vhost: Vhost) -> None:
    """With malformed bytes in any part of it; the API's own answers have a code."""
    for case, (request, status, error) in MALFORMED.items():
        answered, body = await caller.send_raw(request)

        assert (case, answered) == (case, status)
        assert error.encode() in body
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_without_a_broker_a_post_is_503(caller: Caller, publisher: Publisher) -> None:
    """Nothing was accepted, so nothing can be lost."""
    await publisher.close()

    status, answer = await caller.request("POST", "/v1/customers", user().model_dump_json())

    assert (status, answer["code"]) == (503, "broker_unavailable")


async def test_a_key_that_asks_too_often_is_429(caller: Caller) -> None:
    """The limit of this test is 100 requests."""
    answers = [await caller.request("GET", f"/v1/customers/{uuid4()}") for _ in range(101)]

    assert {status for status, _ in answers[:100]} == {404}
    assert (answers[100][0], answers[100][1]["code"]) == (429, "rate_limited")
