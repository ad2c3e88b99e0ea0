"""The thread that asks the usage API: one request for each user at a time."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp

from nexus_publisher.answers import retry_after_seconds
from nexus_publisher.entitlements.cache import Cache, Kept, fresh_seconds
from nexus_publisher.entitlements.circuit import Circuit
from nexus_publisher.entitlements.decision import Entitlement, read_entitlement
from nexus_publisher.log import log
from nexus_publisher.threadless_loop import ThreadlessLoop

ANSWER_SECONDS: Final = 5.0
"""For a whole request. Its caller's budget is over by then; the next call finds the answer."""

LOST_SECONDS: Final = 2 * ANSWER_SECONDS
"""After this a request is given up, whatever holds up its thread, such as a look-up of a name."""

MAX_CONNECTIONS: Final = 16
"""To the usage API; further requests wait for one."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""An answer about one user has a few kilobytes; a proxy's error page may have any number."""

CHUNK_BYTES: Final = 16 * 1024
STOP_SECONDS: Final = 0.5

Answered = Future[Entitlement | None]


class _FailedError(Exception):
    """The API gave no answer that can be used; the text has no value of a user."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Request:
    answered: Answered = field(default_factory=Future)
    began_at: float = field(default_factory=time.monotonic)


class Requests:
    """Fetches answers in one daemon thread, which has an event loop of its own."""

    def __init__(self, url: str, key: str, cache: Cache, stale_seconds: float) -> None:
        self._url = url
        self._key = key
        self._cache = cache
        self._stale_seconds = stale_seconds
        self._circuit = Circuit()
        self._lock = threading.RLock()
        self._under_way: dict[str, _Request] = {}
        self._loop = ThreadlessLoop()
        self._loop.set_exception_handler(_ignore)
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._stopped = False

    def is_under_way(self, user_id: str) -> bool:
        """Return whether this user's answer is being fetched."""
        return user_id in self._under_way

    def join(self, user_id: str, seconds: float) -> Answered | None:
        """Return the request for a user, begun now if there is none; it is never to be cancelled.

        ``None``: the API is not to be asked now, or another thread held this up for ``seconds``.
        """
        if not self._lock.acquire(timeout=seconds):
            return None
        try:
            now = time.monotonic()
            request = self._under_way.get(user_id)
            if request is not None and now - request.began_at < LOST_SECONDS:
                return request.answered
            if self._stopped or not self._circuit.may_ask(now, len(self._under_way)):
                return None
            if self._thread is None:
                self._start()
            request = self._under_way[user_id] = _Request()
            self._loop.call_soon_threadsafe(self._begin, user_id, request)
        except RuntimeError:  # the interpreter ends, or the system has no thread left
            self._under_way.pop(user_id, None)
            return None
        else:
            return request.answered
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End the thread, and the requests that are under way without an answer."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is None:
            self._loop.close()
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        if thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="nexus-entitlements", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _begin(self, user_id: str, request: _Request) -> None:
        task = self._loop.create_task(self._fetch(user_id))
        task.add_done_callback(self._settled(user_id, request))

    def _settled(
        self, user_id: str, request: _Request
    ) -> Callable[[asyncio.Task[Entitlement | None]], None]:
        def settle(task: asyncio.Task[Entitlement | None]) -> None:
            with self._lock:
                if self._under_way.get(user_id) is request:
                    del self._under_way[user_id]
            request.answered.set_result(None if task.cancelled() else task.result())

        return settle

    async def _fetch(self, user_id: str) -> Entitlement | None:
        """Fetch and keep an answer; ``None`` without one that can be used."""
        try:
            kept = await self._ask(user_id, self._cache.get(user_id))
        except _FailedError as error:
            self._failed(str(error), error.retry_after)
        except Exception as error:  # noqa: BLE001 - whatever it is must not end the thread
            self._failed(f"the API is not reachable: {type(error).__name__}")
        else:
            self._succeeded()
            self._cache.put(user_id, kept)
            return kept.entitlement
        return None

    async def _ask(self, user_id: str, known: Kept | None) -> Kept:
        if self._session is None:
            self._session = self._open()
        headers = {} if known is None or known.etag is None else {"If-None-Match": known.etag}
        url = f"{self._url}/{user_id}"
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == HTTPStatus.NOT_MODIFIED and known is not None:
                entitlement, etag = known.entitlement, known.etag
            elif response.status == HTTPStatus.OK:
                entitlement, etag = await _read(response, user_id), response.headers.get("ETag")
            else:
                retry_after = retry_after_seconds(response.headers.get("Retry-After"))
                raise _FailedError(f"the API answers {response.status}", retry_after)
            seconds = fresh_seconds(response.headers.get("Cache-Control"))
        fresh_until = time.monotonic() + seconds
        return Kept(entitlement, etag, fresh_until, fresh_until + self._stale_seconds)

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, resolver=aiohttp.ThreadedResolver()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {self._key}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )

    def _failed(self, cause: str, retry_after: float | None = None) -> None:
        if self._circuit.failures == 0:
            log(logging.WARNING, "entitlements are not answered: %s", cause)
        chance = random.random()  # noqa: S311 - the jitter of a pause is no secret
        self._circuit.failed(time.monotonic(), chance=chance, retry_after=retry_after)

    def _succeeded(self) -> None:
        if self._circuit.failures > 0:
            log(logging.INFO, "entitlements are answered again")
        self._circuit.succeeded()


async def _read(response: aiohttp.ClientResponse, user_id: str) -> Entitlement:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _FailedError("the API's answer is too large")
    entitlement = read_entitlement(bytes(body), user_id)
    if entitlement is None:
        raise _FailedError("the API's answer can't be read")
    return entitlement


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, object]) -> None:
    """Drop what asyncio would log about a lost connection; its cause is logged once."""
