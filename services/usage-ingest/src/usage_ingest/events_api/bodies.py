"""Reads the bodies of requests within limits of size, time and memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from nexus_service.problems import Code, Problem, ProblemError

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""A full batch has 8 KiB for each event on average."""

MAX_BYTES_IN_HAND: Final = 64 * 1024 * 1024
"""Of all requests at once. An alarm at the broker makes them wait, and memory has a limit."""

BODY_SECONDS: Final = 10.0
"""For the whole body, so that a slow client holds a connection no longer. With the time to publish
it is less than what SIGTERM leaves by default."""

OVERLOADED: Final = Problem(Code.OVERLOADED, "too many requests are in progress", retry_after=1)


class Bodies:
    """The bodies of all requests in progress. ``note`` is called with each change in bytes."""

    def __init__(self, note: Callable[[int], None]) -> None:
        self._in_hand = 0
        self._note = note

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body of ``request``, which counts as in hand while the context lasts.

        Raises:
            ProblemError: too large, too slow, or too much is in hand.
            ClientDisconnect: the client closed the connection before the end.
        """
        declared = request.headers.get("content-length", "")
        _check_size(int(declared) if declared.isdecimal() else 0)
        body = bytearray()
        try:
            await self._read_into(body, request)
            yield bytes(body)
        finally:
            self._hold(-len(body))

    async def _read_into(self, body: bytearray, request: Request) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    self._hold(len(chunk))
                    body += chunk
                    _check_size(len(body))
                    if self._in_hand > MAX_BYTES_IN_HAND:
                        raise ProblemError(OVERLOADED)
        except TimeoutError:
            detail = f"the body did not arrive within {BODY_SECONDS:.0f} s"
            raise ProblemError(Problem(Code.BODY_TIMEOUT, detail)) from None

    def _hold(self, change: int) -> None:
        self._in_hand += change
        self._note(change)


def _check_size(size: int) -> None:
    if size > MAX_REQUEST_BYTES:
        detail = f"a request has at most {MAX_REQUEST_BYTES} bytes"
        raise ProblemError(Problem(Code.TOO_LARGE, detail))
