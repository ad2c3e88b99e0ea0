"""The client: one object in a host service, for all its threads and tasks."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Concatenate, Final, Literal, ParamSpec, Self
from uuid import UUID

from nexus_publisher import process
from nexus_publisher.entitlements.cache import Cache
from nexus_publisher.entitlements.counters import Counters, EntitlementStats, Source
from nexus_publisher.entitlements.decision import Decision, Entitlement, decide
from nexus_publisher.entitlements.requests import Answered, Requests
from nexus_publisher.http import checked_address
from nexus_publisher.log import log

P = ParamSpec("P")
Method = Callable[Concatenate["Entitlements", P], Decision]
AsyncMethod = Callable[Concatenate["Entitlements", P], Awaitable[Decision]]

Otherwise = Literal["open", "closed"] | bool
"""What a feature does without an answer: run (``"open"``, true) or not (``"closed"``, false)."""

ENTITLEMENTS_PATH: Final = "/v1/entitlements"


def _never_raises(method: Method[P]) -> Method[P]:
    """Make an error, that of a wrong signature too, a decision without an answer."""

    @wraps(method)
    def call(self: "Entitlements", /, *args: P.args, **kwargs: P.kwargs) -> Decision:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the host must never see it
            return self._failed(error, kwargs.get("otherwise"))

    return call


def _never_raises_async(method: AsyncMethod[P]) -> AsyncMethod[P]:
    """Do the same for a coroutine."""

    @wraps(method)
    async def call(self: "Entitlements", /, *args: P.args, **kwargs: P.kwargs) -> Decision:
        try:
            return await method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the host must never see it
            return self._failed(error, kwargs.get("otherwise"))

    return call


@dataclass(frozen=True, slots=True)
class _Found:
    """What a call has to decide by."""

    entitlement: Entitlement | None
    source: Source


@dataclass(frozen=True, slots=True)
class _Settings:
    address: str
    key: str = field(repr=False)
    max_users: int
    stale_seconds: float


class _Parts:
    """What belongs to one process; the child of a fork makes its own."""

    def __init__(self, settings: _Settings) -> None:
        self.counters = Counters()
        self.cache = Cache(settings.max_users)
        self.requests = Requests(settings.address, settings.key, self.cache, settings.stale_seconds)


_inherited: Final[list[_Parts]] = []
"""Parts of a parent, kept in its child for ever: to close them here would disturb the parent."""


class Entitlements:
    """Says whether a tool may run; no call raises, or waits longer than the budget.

    Args:
        url: the usage API, such as ``https://usage.example``, also with ``/v1/entitlements``.
        key: a service key that may read entitlements.
        budget_seconds: how long a call waits for an answer that is not in the cache.
        stale_seconds: how long an answer is used after the API's ``max-age``, while a new one is
            fetched.
        max_users: how many users' answers are kept.

    Raises:
        ValueError: the URL or the key can't be used; the text repeats neither. Nothing else raises.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        budget_seconds: float = 0.1,
        stale_seconds: float = 300.0,
        max_users: int = 10_000,
    ) -> None:
        address = checked_address("usage API", url, key, ENTITLEMENTS_PATH)
        self._budget = budget_seconds
        self._settings = _Settings(address, key, max_users, stale_seconds)
        self._parts = _Parts(self._settings)
        process.watch(self, handle_sigterm=False)

    @_never_raises
    def allowed(
        self, user_id: UUID | str, server_id: str, tool_name: str, *, otherwise: Otherwise
    ) -> Decision:
        """Decide whether a tool may run for a user now; without an answer ``otherwise`` holds.

        It blocks its thread for ``budget_seconds`` at most. In a coroutine, use ``aallowed``.
        """
        deadline = time.monotonic() + self._budget
        user = str(UUID(str(user_id)))
        found, answered = self._begin(user, server_id, tool_name)
        if answered is not None:
            found = _wait(answered, deadline - time.monotonic(), found)
        return self._decide(found, server_id, tool_name, otherwise)

    @_never_raises_async
    async def aallowed(
        self, user_id: UUID | str, server_id: str, tool_name: str, *, otherwise: Otherwise
    ) -> Decision:
        """Do ``allowed`` without blocking the event loop."""
        deadline = time.monotonic() + self._budget
        user = str(UUID(str(user_id)))
        found, answered = self._begin(user, server_id, tool_name)
        if answered is not None:
            found = await _wait_async(answered, deadline - time.monotonic(), found)
        return self._decide(found, server_id, tool_name, otherwise)

    def stats(self) -> EntitlementStats:
        """Return the counters of this process."""
        return self._parts.counters.stats(len(self._parts.cache))

    def close(self) -> None:
        """End the thread that asks. Later calls are answered from the cache, or have no answer."""
        self._parts.requests.stop()
        process.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drain(self) -> None:
        """Do nothing: what was not asked yet need not be."""

    def before_fork(self) -> None:
        """Do nothing: a child uses none of its parent's connections."""

    def after_fork_in_parent(self) -> None:
        """Do nothing: the parent goes on."""

    def after_fork_in_child(self) -> None:
        """Make a cache, a thread and connections of the child's own."""
        _inherited.append(self._parts)
        self._parts = _Parts(self._settings)

    def _begin(self, user: str, server_id: str, tool_name: str) -> tuple[_Found, Answered | None]:
        """Return what is known about a user, and the request to wait for, if any.

        An old answer is used while a new one is fetched, unless it refuses: the user may have just
        upgraded.
        """
        parts = self._parts
        kept, now = parts.cache.get(user), time.monotonic()
        if kept is None or now >= kept.usable_until:
            return _Found(None, Source.UNAVAILABLE), parts.requests.join(user, self._budget)
        if now < kept.fresh_until:
            return _Found(kept.entitlement, Source.HIT), None
        stale = _Found(kept.entitlement, Source.STALE)
        if not decide(kept.entitlement, server_id, tool_name, otherwise=False).allowed:
            return stale, parts.requests.join(user, self._budget)
        if not parts.requests.is_under_way(user):
            parts.requests.join(user, 0)
        return stale, None

    def _decide(
        self, found: _Found, server_id: str, tool_name: str, otherwise: Otherwise
    ) -> Decision:
        decision = decide(
            found.entitlement,
            server_id,
            tool_name,
            otherwise=_is_open(otherwise),
            stale=found.source is Source.STALE,
        )
        self._parts.counters.count(found.source, decision.why)
        return decision

    def _failed(self, error: Exception, otherwise: object) -> Decision:
        decision = decide(None, "", "", otherwise=_is_open(otherwise))
        counted = self._parts.counters
        if counted.count(Source.INVALID, decision.why) == 1:
            text = "allowed was called with arguments that can't be used: %s"
            log(logging.WARNING, text, type(error).__name__)
        return decision


def _is_open(otherwise: object) -> bool:
    """Return whether a feature runs without an answer; a mistyped choice is none to run."""
    return otherwise is True or otherwise == "open"


def _wait(answered: Answered, seconds: float, known: _Found) -> _Found:
    try:
        return _answer(answered.result(max(seconds, 0.0)), known)
    except TimeoutError:
        return _late(known)


async def _wait_async(answered: Answered, seconds: float, known: _Found) -> _Found:
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake(_: Answered) -> None:
        with suppress(RuntimeError):  # the caller's loop has ended
            loop.call_soon_threadsafe(woken.set)

    answered.add_done_callback(wake)
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await woken.wait()
    except TimeoutError:
        return _late(known)
    return _answer(answered.result(), known)


def _answer(entitlement: Entitlement | None, known: _Found) -> _Found:
    return known if entitlement is None else _Found(entitlement, Source.FETCHED)


def _late(known: _Found) -> _Found:
    return _Found(None, Source.TIMEOUT) if known.entitlement is None else known
