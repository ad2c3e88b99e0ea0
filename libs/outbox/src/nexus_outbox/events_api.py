"""Publishes through the events API, for a loop that can't reach the broker."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Final

import aiohttp

from nexus_contracts import BATCH_CONTENT_TYPE
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.publisher import Publication
from nexus_outbox.outcomes import read_answer

PORTION_BYTES: Final = 512 * 1024
"""Of one request, but for its last event, which has 256 KiB at most. The API takes 8 MiB, and many
gateways before it 1 MiB."""

CONNECT_SECONDS: Final = 5.0
PUBLISH_SECONDS: Final = 20.0
"""For all requests of one call: with the other steps a round is shorter than its lease."""

CHECK_SECONDS: Final = 5.0


class HttpPublisher:
    """Publishes by HTTP what ``nexus_messaging.publisher.Publisher`` publishes to the broker."""

    connected: Final = True
    """An attempt is always worth while: only an answer shows whether the API can publish."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url.rstrip('/')}/v1/events"
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}", "Content-Type": BATCH_CONTENT_TYPE},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        self._on_failure: Callable[[PublishError], None] = lambda _: None

    @classmethod
    async def connect(cls, url: str, key: str) -> "HttpPublisher":
        """Return a publisher to an API that accepts the key and can publish.

        Raises:
            PublishError: it is away, can't publish, or refuses the key.
        """
        publisher = cls(url, key)
        if fault := await publisher.fault():
            await publisher.close()
            raise PublishError(fault)
        return publisher

    async def fault(self) -> str | None:
        """Return why events can't be published now, or ``None``: it sends a batch of none."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                answer = await self._post([])
        except TimeoutError:
            return "the events API does not answer"
        return str(answer) if isinstance(answer, PublishError) else None

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish in few requests; return, in the same order, the error of each or ``None``.

        A ``PublishTimeoutError`` says nothing about its event: the API is away or can't publish.
        """
        bodies = [each.message.body for each in publications]
        unanswered = PublishTimeoutError("the events API does not answer")
        errors: list[PublishError | None] = [unanswered] * len(bodies)
        with suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_SECONDS):
                for portion in _portions(bodies):
                    if not await self._publish(bodies, portion, errors):
                        break
        for error in errors:
            if error is not None:
                self._on_failure(error)
        return errors

    def watch_failures(self, callback: Callable[[PublishError], None]) -> None:
        """Call ``callback`` with the error of every event that was not published."""
        self._on_failure = callback

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _publish(
        self, bodies: Sequence[bytes], portion: list[int], errors: list[PublishError | None]
    ) -> bool:
        """Publish a portion without the events that the API refuses; return whether it answers.

        A request with a refused event publishes nothing, and its answer names all of them.
        """
        while portion:
            answer = await self._post([bodies[index] for index in portion])
            if isinstance(answer, PublishError):
                for index in portion:
                    errors[index] = answer
                return False
            if not answer:
                for index in portion:
                    errors[index] = None
                break
            for place, fault in answer.items():
                errors[portion[place]] = PublishError(fault)
            portion = [index for place, index in enumerate(portion) if place not in answer]
        return True

    async def _post(self, bodies: Sequence[bytes]) -> dict[int, str] | PublishError:
        """Send a batch; return what ``read_answer`` makes of the answer."""
        body = BytesIO(b"[" + b",".join(bodies) + b"]")  # aiohttp warns of large bytes
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                return read_answer(response.status, await response.read(), len(bodies))
        except (aiohttp.ClientError, OSError) as error:
            return PublishTimeoutError(f"the events API is not reachable: {type(error).__name__}")


def _portions(bodies: Sequence[bytes]) -> Iterator[list[int]]:
    """Yield the indexes of each request's events."""
    portion, size = [], 0
    for index, body in enumerate(bodies):
        portion.append(index)
        size += len(body)
        if size > PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
