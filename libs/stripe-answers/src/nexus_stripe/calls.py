"""Calling Stripe through its SDK: every call ends in an answer, none in an exception."""

import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import aiohttp
import stripe
from multidict import CIMultiDict

from nexus_stripe.answers import Answer
from nexus_stripe.exchange import Exchange, answer_of

CALL_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 5.0
"""Seconds of a whole call, and of its connection alone."""

LARGEST_BODY: Final = 8 * 1024 * 1024
"""Bytes of an answer that are read: a page of a hundred objects takes well under one megabyte."""

T = TypeVar("T")

_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")

_exchange: ContextVar[Exchange] = ContextVar("exchange of the call under way")


class UnsendableKeyError(ValueError):
    """The secret key can't be written into an HTTP header."""


class AnswerTooLargeError(ValueError):
    """An answer is longer than any of Stripe's."""


def key_fault(key: str) -> str | None:
    """Return why ``key`` can't be sent to Stripe, or None; the text holds nothing of it."""
    if _SENDABLE.fullmatch(key):
        return None
    return "the key holds a space, a line break or another character that can't be sent"


async def ask(call: Callable[[], Awaitable[T]]) -> tuple[Answer, T | None]:
    """Make ``call`` and return what came back, with its result if Stripe did what it was asked.

    ``call`` makes its requests through a ``StripeHttp`` and reads what it needs out of their
    answers; whatever it raises on the way is decided by what passed over the wire. A result that
    it could not read is an unreadable answer. Of several requests the last one counts.
    """
    exchange = Exchange()
    token = _exchange.set(exchange)
    try:
        result = await call()
    except Exception as error:  # noqa: BLE001 - the SDK raises anything at all for a foreign body
        ours = isinstance(error, UnsendableKeyError)
        cause = str(error) if ours else type(_origin(error)).__name__
        return answer_of(exchange, understood=False, cause=cause), None
    finally:
        _exchange.reset(token)
    answer = answer_of(exchange, understood=True)
    return answer, result if answer.success else None


def _origin(error: Exception) -> BaseException:
    """Return what a vendor's error was raised for: it says more than the vendor's wrapping.

    A timeout is raised for the cancellation that it made itself, which says less.
    """
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


class _Request(aiohttp.ClientRequest):
    """A request that notes on its exchange when it begins to be written."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        # What this raises has written nothing: headers are checked before any byte is written, and
        # what fails while a body is written is the response's fault, which is awaited later.
        response = await super().send(conn)
        _exchange.get().written = True
        return response


class StripeHttp(stripe.HTTPClient):
    """The SDK's HTTP client, on aiohttp: it shows ``ask`` what passes over the wire.

    It follows no redirect, which would repeat a request elsewhere, and keeps no cookies, which are
    never Stripe's.
    """

    name = "aiohttp"

    def __init__(self) -> None:
        """Prepare a client; must be called with a running event loop."""
        super().__init__()
        connector = aiohttp.TCPConnector(
            limit=0,  # waiting for a connection would count against the call's own time
            ssl=ssl.create_default_context(cafile=stripe.ca_bundle_path),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT, connect=CONNECT_TIMEOUT),
        )

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Make one request of the SDK's, and note it on the exchange of the call under way."""
        exchange = _exchange.get()
        exchange.written, exchange.status, exchange.body = False, None, None
        if fault := key_fault(headers["Authorization"].removeprefix("Bearer ")):
            raise UnsendableKeyError(fault)
        async with self._session.request(
            method, url, headers=headers, data=post_data, allow_redirects=False
        ) as response:
            exchange.status, exchange.headers = response.status, response.headers
            exchange.body = body = await _whole(response.content)
        kept = CIMultiDict(response.headers)
        kept.popall("Stripe-Notice", None)  # the SDK would write it to stderr as a warning
        return body, response.status, kept

    async def close_async(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _whole(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise AnswerTooLargeError
    return bytes(body)


def stripe_client(secret_key: str, base: str, http: StripeHttp) -> stripe.StripeClient:
    """Return a client that calls once for each call of ours; ``base`` is empty for the real one."""
    return stripe.StripeClient(
        secret_key,
        base_addresses={"api": base} if base else {},
        http_client=http,
        max_network_retries=0,
    )
