"""Calls Stripe through its SDK: every call ends in an answer, none in an exception."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import aiohttp
import stripe
from multidict import CIMultiDict
from typing_extensions import override

from nexus_stripe.answers import StripeAnswer
from nexus_stripe.exchange import HttpExchange, answer_of

CALL_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a whole call, and for its connection alone."""

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a body that are read: a page of a hundred objects takes well under one megabyte."""

T = TypeVar("T")

_exchange: ContextVar[HttpExchange] = ContextVar("exchange of the call in progress")


class AnswerTooLargeError(ValueError):
    """A body is larger than any of Stripe's."""


async def ask(call: Callable[[], Awaitable[T]]) -> tuple[StripeAnswer, T | None]:
    """Run ``call`` and return the answer, with the result of ``call`` if the answer is a success.

    ``call`` makes its requests through a ``StripeHttp`` and reads the responses. What it raises
    does not decide what the answer is: what passed over the wire does. A success that it can't read
    is an unreadable answer. Of several requests the last one counts.
    """
    exchange = HttpExchange()
    token = _exchange.set(exchange)
    try:
        result = await call()
    except Exception as error:  # noqa: BLE001 - for a foreign body the SDK may raise anything
        cause = type(_origin(error)).__name__
        return answer_of(exchange, understood=False, cause=cause), None
    finally:
        _exchange.reset(token)
    answer = answer_of(exchange, understood=True)
    return answer, result if answer.success else None


def _origin(error: Exception) -> BaseException:
    """Return the error that the SDK's error was raised from, which says more.

    A timeout is raised from a cancellation, which says less.
    """
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


class _Request(aiohttp.ClientRequest):
    """A request that marks its exchange as soon as it begins to be written."""

    @override
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        # If this raises, nothing was written: headers are checked before the first byte, and an
        # error while the body is written is raised later, when the response is awaited.
        response = await super().send(conn)
        _exchange.get().written = True
        return response


class StripeHttp(stripe.HTTPClient):
    """The SDK's HTTP client, on aiohttp: it records what passes over the wire for ``ask``.

    It follows no redirects, which would repeat a request elsewhere, and keeps no cookies, because
    Stripe sets none.
    """

    name = "aiohttp"

    def __init__(self) -> None:
        """Create a client; needs a running event loop."""
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

    @override
    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Make one request for the SDK, and record it on the exchange of the call in progress."""
        exchange = _exchange.get()
        exchange.written, exchange.status, exchange.body = False, None, None
        async with self._session.request(
            method, url, headers=headers, data=post_data, allow_redirects=False
        ) as response:
            exchange.status, exchange.headers = response.status, response.headers
            exchange.body = body = await _whole(response.content)
        kept = CIMultiDict(response.headers)
        kept.popall("Stripe-Notice", None)  # the SDK would write it to stderr as a warning
        return body, response.status, kept

    @override
    async def close_async(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _whole(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise AnswerTooLargeError
    return bytes(body)


def stripe_client(secret_key: str, base: str, http: StripeHttp) -> stripe.StripeClient:
    """Return a client that never retries; ``base`` is the address, empty for Stripe itself."""
    return stripe.StripeClient(
        secret_key,
        base_addresses={"api": base} if base else {},
        http_client=http,
        max_network_retries=0,
    )
