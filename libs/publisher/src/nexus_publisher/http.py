"""Sends batches to the events API: ``POST /v1/events``."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from nexus_contracts import BATCH_CONTENT_TYPE
from nexus_publisher.answers import BatchAnswer, Failure, Trouble, answer_to
from nexus_publisher.entries import Entry

EVENTS_PATH: Final = "/v1/events"
PROBLEM_TYPE: Final = "application/problem+json"

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
"""For a whole request: the API itself waits for the broker's confirms."""

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""A longer body is no answer of the API's: it names 1,000 events at most."""

CHUNK_BYTES: Final = 64 * 1024


def checked_address(api: str, url: str, key: str, path: str) -> str:
    """Return the address of ``path``, which the URL of an API may have already.

    Raises:
        ValueError: the URL or the key can't be used; the text repeats neither.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError(f"the URL of the {api} must be http(s)://host, without a login")
    if not key.isascii() or not key.isprintable() or not key:
        raise ValueError(f"the key of the {api} must be printable ASCII")
    return url.rstrip("/").removesuffix(path).rstrip("/") + path


@dataclass(frozen=True, slots=True)
class HttpTransport:
    """The events API at ``url``, such as ``https://metering.example``, and a key for it.

    The URL may also have the path ``/v1/events`` already.

    Raises:
        ValueError: the URL or the key can't be used; the text repeats neither.
    """

    url: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what could never be sent."""
        checked_address("events API", self.url, self.key, EVENTS_PATH)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["HttpSender"]:
        """Return a sender; its connection is kept open between batches."""
        connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            address = checked_address("events API", self.url, self.key, EVENTS_PATH)
            yield HttpSender(session, address, self.key)


class HttpSender:
    """Sends batches on a session."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": BATCH_CONTENT_TYPE}

    async def send(self, batch: Sequence[Entry]) -> BatchAnswer:
        """Send a batch in one request; all of it is confirmed, or nothing."""
        body = b"[" + b",".join(entry.body for entry in batch) + b"]"
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                answer = await _body(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            cause = f"the API is not reachable: {type(error).__name__}"
            return BatchAnswer(failure=Failure(Trouble.OUTAGE, cause))
        retry_after = response.headers.get("Retry-After")
        return answer_to(response.status, answer, len(batch), retry_after=retry_after)


async def _body(response: aiohttp.ClientResponse) -> object:
    """Return the body of a 202 or of a problem, ``None`` if there is none that can be read."""
    if response.status != HTTPStatus.ACCEPTED and response.content_type != PROBLEM_TYPE:
        return None
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
