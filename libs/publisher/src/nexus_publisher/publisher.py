"""The publisher: one object in a host service, for all its threads and tasks."""

import asyncio
import time as clock
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Concatenate, Final, Literal, ParamSpec, Self
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from nexus_contracts import (
    EventData,
    InvalidEventError,
    ToolExecuted,
    UserCreated,
    UserUpdated,
)
from nexus_contracts.fields import Text
from nexus_publisher import process
from nexus_publisher.counters import Stats
from nexus_publisher.encoding import Envelope, encode, run_version, user_version
from nexus_publisher.entries import Entry
from nexus_publisher.ids import new_id
from nexus_publisher.losses import OnDrop
from nexus_publisher.parts import Parts, Settings
from nexus_publisher.results import Dropped, DropReason, Result
from nexus_publisher.spool_file import Synchronous
from nexus_publisher.transport import Transport

P = ParamSpec("P")
Method = Callable[Concatenate["Publisher", P], Result]

MIB: Final = 1024 * 1024
FLUSH_POLL_SECONDS: Final = 0.02
FORK_SECONDS: Final = 5.0
"""How long a fork waits for the spool; a child then goes on without it."""

_inherited: Final[list[Parts]] = []
"""Parts of a parent, kept in its child for ever: to close them here would disturb the parent."""


def _never_raises(event_type: str) -> Callable[[Method[P]], Method[P]]:
    """Return a decorator: errors, those of a wrong signature too, are returned as ``Dropped``."""

    def decorate(method: Method[P]) -> Method[P]:
        @wraps(method)
        def call(self: "Publisher", /, *args: P.args, **kwargs: P.kwargs) -> Result:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the host must never see it
                wrong = isinstance(error, TypeError)
                reason = DropReason.INVALID if wrong else DropReason.INTERNAL
                detail = _misfit(method, args, kwargs) if wrong else type(error).__name__
                return self._parts.losses.report(Dropped(new_id(), event_type, reason, detail))

        return call

    return decorate


def _misfit(
    method: Callable[..., Result], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> str:
    """Return how arguments don't fit the method: Python's text has a name, and never a value."""
    try:
        signature(method).bind(None, *args, **kwargs)
    except TypeError as error:
        return f"wrong arguments: {error}"
    return "wrong arguments"


class Publisher:
    """Publishes events; no call waits for the network or raises.

    Args:
        transport: where events go, such as ``HttpTransport``.
        source: the name of the host service, always the same.
        spool: a folder on a local disk; without one events wait in memory only.
        spool_bytes: the size of the spool's file at most.
        memory_bytes: what events in memory take at most.
        synchronous: ``"normal"`` survives a kill, and a power cut but for the last seconds;
            ``"full"`` survives a power cut, and each call waits for the disk.
        drain_seconds: how long exit, SIGTERM and ``close`` wait for events that are in memory.
        on_drop: called for each dropped event, in the thread that dropped it.
        handle_sigterm: drain at SIGTERM if the process has no handler of its own.

    Raises:
        ValueError: ``source`` breaks the contract. Nothing else raises.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        source: str,
        spool: Path | str | None = None,
        spool_bytes: int = 256 * MIB,
        memory_bytes: int = 8 * MIB,
        synchronous: Synchronous = "normal",
        drain_seconds: float = 2.0,
        on_drop: OnDrop | None = None,
        handle_sigterm: bool = True,
    ) -> None:
        self._source = _checked_source(source)
        self._settings = Settings(
            transport,
            None if spool is None else Path(spool).absolute(),  # the host may change its folder
            spool_bytes,
            memory_bytes,
            synchronous,
            on_drop,
        )
        self._drain_seconds = drain_seconds
        self._closed = False
        self._suspended = False
        self._parts = Parts(self._settings)
        process.watch(self, handle_sigterm=handle_sigterm)
        if self._parts.spool is not None:
            self._parts.spool.open()
        self._parts.delivery.wake()  # a spool may hold events of an earlier process

    @_never_raises(ToolExecuted.TYPE)
    def tool_executed(
        self,
        *,
        user_id: UUID | str,
        server_id: str,
        tool_name: str,
        origin: Literal["direct", "hub", "job"],
        status: Literal["succeeded", "failed"],
        token_count: int | None = None,
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        metadata: Mapping[str, object] | None = None,
        event_id: UUID | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Result:
        """Record that a tool run ended.

        The fields are those of the event (docs/events.md): of version 2 if the model or tokens by
        kind are given, else of version 1, which every release of metering reads. ``event_id`` and
        ``time`` are made here; give them, the same each time, only for a run that may be recorded
        again.
        """
        fields = {
            "user_id": user_id,
            "server_id": server_id,
            "tool_name": tool_name,
            "origin": origin,
            "status": status,
            "token_count": token_count,
            "metadata": metadata,
            "model": model,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
        }
        return self._record(run_version(fields), fields, event_id, time, traceparent)

    @_never_raises(UserCreated.TYPE)
    def user_created(
        self,
        *,
        user_id: UUID | str,
        email: str | None = None,
        name: str | None = None,
        stripe_customer_id: str | None = None,
        event_id: UUID | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Result:
        """Record that there is a new user, who is to become a customer at Stripe.

        ``stripe_customer_id`` is the customer that the user has there already. With it, or without
        an address, the event is of version 2, else of version 1.
        """
        fields = {
            "user_id": user_id,
            "email": email,
            "name": name,
            "stripe_customer_id": stripe_customer_id,
        }
        return self._record(user_version(fields), fields, event_id, time, traceparent)

    @_never_raises(UserUpdated.TYPE)
    def user_updated(
        self,
        *,
        user_id: UUID | str,
        email: str | None = None,
        name: str | None = None,
        event_id: UUID | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Result:
        """Record a user's new address or name; an empty name removes it, None leaves it."""
        fields = {"user_id": user_id, "email": email, "name": name}
        return self._record(UserUpdated, fields, event_id, time, traceparent)

    def _record(
        self,
        kind: type[EventData],
        fields: Mapping[str, object],
        event_id: UUID | None,
        time: datetime | None,
        traceparent: str | None,
    ) -> Result:
        parts = self._parts
        envelope = Envelope(
            event_id or new_id(), self._source, time or datetime.now(UTC), traceparent
        )
        try:
            encoded = encode(kind, fields, envelope)
        except InvalidEventError as error:
            dropped = Dropped(envelope.id, kind.TYPE, DropReason.INVALID, str(error))
            return parts.losses.report(dropped)

        entry = Entry(envelope.id, kind.TYPE, encoded.body, clock.time())
        result = parts.keep(entry, left_out=encoded.left_out)
        if not self._closed:
            parts.delivery.wake()
        elif parts.spool is not None:
            parts.spool.close()  # nobody closes it before a fork any more
        return result

    def stats(self) -> Stats:
        """Return the counters and what waits; it reads the spool, which takes milliseconds."""
        return self._parts.stats()

    def flush(self, seconds: float) -> bool:
        """Wait until no event waits in memory or on disk; return whether that came in time."""
        deadline = clock.monotonic() + seconds
        while (stats := self.stats()).in_memory or stats.spooled != 0:
            if clock.monotonic() >= deadline:
                return False
            self._parts.delivery.wake()
            clock.sleep(FLUSH_POLL_SECONDS)
        return True

    async def aflush(self, seconds: float) -> bool:
        """Do ``flush`` without blocking the event loop."""
        return await asyncio.to_thread(self.flush, seconds)

    def drain(self) -> None:
        """Store or send what is in memory and try to send what is on disk, once.

        It takes ``drain_seconds`` at most, and ends at once when nothing is in memory and the other
        side does not answer: what is on disk is sent by another process or the next one.
        """
        self._parts.drain(self._drain_seconds)

    def close(self) -> None:
        """Drain and end. Events that are still in memory are dropped and reported.

        A later call stores its event on disk for the next process, or drops it.
        """
        if self._closed:
            return
        self._closed = True
        self._parts.close(self._drain_seconds)
        process.forget(self)

    async def aclose(self) -> None:
        """Do ``close`` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def before_fork(self) -> None:
        """Close the spool, so that a child inherits no connection to it."""
        spool = self._parts.spool
        self._suspended = spool is not None and spool.suspend(FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Use the spool again."""
        if self._suspended and self._parts.spool is not None:
            self._parts.spool.resume()

    def after_fork_in_child(self) -> None:
        """Make a memory, a spool and a thread of the child's own; the parent keeps its events."""
        inherited = self._parts
        _inherited.append(inherited)
        if inherited.spool is not None:
            inherited.spool.abandon()
        self._parts = Parts(self._settings, with_spool=self._suspended)


def _checked_source(source: str) -> str:
    try:
        return TypeAdapter[str](Text).validate_python(source, strict=True)
    except ValidationError:
        raise ValueError("source: 1 to 200 characters without control characters") from None
