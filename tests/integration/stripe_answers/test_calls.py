"""Calls through the real SDK to a real server, and the answer of each."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import stripe

from local_stack.ports import free_ports
from nexus_stripe import calls
from nexus_stripe.answers import Receipt, StripeAnswer
from nexus_stripe.bodies import Item, Page, every_item
from nexus_stripe.calls import StripeHttp, ask, stripe_client
from stripe_emulator.running import DEFAULT_KEY, RunningEmulator, running_emulator
from support.http_servers import raw_server, response

KEY = "sk_test_key"
MINE = {"Request-Id": "req_1"}


@asynccontextmanager
async def client(base: str, key: str = KEY) -> AsyncIterator[stripe.StripeClient]:
    """Yield a client for the server at ``base``."""
    http = StripeHttp()
    yield stripe_client(key, base, http)
    await http.close_async()


async def created(base: str, key: str = KEY, name: str = "x") -> StripeAnswer:
    """Create a customer and return the answer."""
    async with client(base, key) as api:
        answer, _ = await ask(lambda: api.v1.customers.create_async({"name": name}))
        return answer


def _always(part: bytes, _line: bytes) -> bytes:
    return part


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts of calls."""
    monkeypatch.setattr(calls, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(calls, "CALL_TIMEOUT", 0.6)


@pytest.mark.parametrize("key", ["sk_test_key\n", "sk_\ntest"])
async def test_a_key_with_a_line_break_is_never_sent(key: str) -> None:
    """The settings refuse such a key, and so does the HTTP library."""
    async with raw_server(lambda _: response(200, b"{}", MINE)) as base:
        answer = await created(base, key)

    assert answer.receipt is Receipt.NEVER_SENT


@pytest.mark.parametrize(
    "base",
    [
        "http://[",
        "http://127.0.0.1:99999",
        "http://",
        "gopher://127.0.0.1",
        "http://nowhere.invalid",
    ],
)
async def test_an_address_that_cannot_be_reached_is_never_sent(base: str) -> None:
    """An invalid URL, or a name without an address."""
    assert (await created(base)).receipt is Receipt.NEVER_SENT


async def test_a_refused_connection_is_never_sent() -> None:
    """No process listens on the port."""
    (port,) = free_ports(None)

    assert (await created(f"http://127.0.0.1:{port}")).receipt is Receipt.NEVER_SENT


async def test_a_failed_tls_handshake_is_never_sent() -> None:
    """The server has no TLS: no byte of the request was written."""
    async with raw_server(lambda _: response(200, b"{}")) as base:
        answer = await created(base.replace("http:", "https:"))

    assert answer.receipt is Receipt.NEVER_SENT


@pytest.mark.usefixtures("short_timeouts")
async def test_a_silent_tls_handshake_is_never_sent() -> None:
    """The connection times out before anything is written."""
    async with raw_server(lambda _: None) as base:
        answer = await created(base.replace("http:", "https:"))

    assert answer.receipt is Receipt.NEVER_SENT


async def test_a_parameter_that_cannot_be_encoded_is_never_sent() -> None:
    """An unexpected error, raised before the request was written."""
    async with raw_server(lambda _: response(200, b"{}")) as base:
        answer = await created(base, name="\udc80")

    assert answer.receipt is Receipt.NEVER_SENT


@pytest.mark.usefixtures("short_timeouts")
async def test_a_written_request_without_answer_is_lost() -> None:
    """It may have had its effect."""
    async with raw_server(lambda _: None) as base:
        answer = await created(base)

    assert (answer.receipt, answer.cause) == (Receipt.LOST, "TimeoutError")


@pytest.mark.parametrize("whole", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nRequest-Id: req_1\r\n"])
async def test_a_connection_closed_within_the_headers_is_lost(whole: bytes) -> None:
    """The answer is not complete."""
    async with raw_server(lambda _: whole) as base:
        assert (await created(base)).receipt is Receipt.LOST


async def test_an_answer_cut_off_at_any_byte_is_lost() -> None:
    """An incomplete success or refusal does not count."""
    error = {"error": {"type": "invalid_request_error", "message": "No such customer: 'x'"}}
    for whole in (
        response(200, b'{"object": "customer", "id": "cus_1"}', MINE),
        response(400, json.dumps(error).encode(), MINE),
    ):
        for length in range(0, len(whole), 7):
            part = whole[:length]
            async with raw_server(partial(_always, part)) as base:
                assert (await created(base)).receipt is Receipt.LOST


async def test_a_redirect_is_not_followed() -> None:
    """It would send the request and its key to an address that a gateway chose."""
    requests: list[bytes] = []

    def redirect(line: bytes) -> bytes:
        requests.append(line)
        return response(307, b"", {"Location": "/login"})

    async with raw_server(redirect) as base:
        answer = await created(base)

    assert answer.receipt is Receipt.UNREADABLE
    assert requests == [b"POST /v1/customers HTTP/1.1"]


async def test_a_body_over_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless one would fill the memory."""
    monkeypatch.setattr(calls, "MAX_ANSWER_BYTES", 1000)
    async with raw_server(lambda _: response(200, b" " * 100_000, MINE)) as base:
        answer = await created(base)

    assert not answer.success
    assert answer.cause == "AnswerTooLargeError"


async def test_a_notice_from_stripe_is_no_warning() -> None:
    """The SDK would write it to stderr, not to the log; in tests a warning raises."""
    notice = {**MINE, "Stripe-Notice": "This is a sandbox."}
    async with raw_server(lambda _: response(200, b'{"object": "customer"}', notice)) as base:
        assert (await created(base)).success


async def test_a_refused_key_is_answered() -> None:
    """Stripe's 401 has no Request-Id."""
    async with running_emulator() as emulator:
        answer = await created(emulator.url, "sk_test_unknown")

    assert (answer.receipt, answer.status) == (Receipt.ANSWERED, 401)


@pytest.fixture
async def two_pages() -> AsyncIterator[RunningEmulator]:
    """Yield an emulator with 101 customers of one address."""
    async with running_emulator() as emulator:
        account = emulator.account
        for _ in range(101):
            account.customers.create({"email": "a@example.com"}, account.clock.now())
        yield emulator


async def test_lists_and_searches_are_read_to_their_last_page(two_pages: RunningEmulator) -> None:
    """A page holds 100."""
    two_pages.account.options = two_pages.account.options.changed({"search_lag_seconds": 0.0})
    async with client(two_pages.url, DEFAULT_KEY) as api:

        async def listed(cursor: Any) -> stripe.StripeObject:
            return await api.v1.customers.list_async(cursor)

        async def searched(cursor: Any) -> stripe.StripeObject:
            params: Any = {"query": "email:'a@example.com'", **cursor}
            return await api.v1.customers.search_async(params)

        for page in (listed, searched):
            answer, found = await ask(partial(every_item, Page[Item], page))
            assert answer.success
            assert len({each.id for each in found or []}) == 101


async def test_a_list_without_an_end_is_unreadable() -> None:
    """A page that always says that more follow was not made by Stripe."""
    page = {"object": "list", "has_more": True, "data": [{"id": "x_1"}]}
    body = json.dumps(page).encode()
    async with raw_server(lambda _: response(200, body, MINE)) as base, client(base) as api:

        async def listed(cursor: Any) -> stripe.StripeObject:
            return await api.v1.customers.list_async(cursor)

        answer, found = await ask(lambda: every_item(Page[Item], listed))

    assert answer.receipt is Receipt.UNREADABLE
    assert found is None
