"""Publishes batches to the broker: persistent, mandatory and confirmed."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq import exceptions
from typing_extensions import override

from nexus_contracts import CONTENT_TYPE
from nexus_publisher.answers import BatchAnswer, Failure, Trouble
from nexus_publisher.entries import Entry

T = TypeVar("T")

EXCHANGE: Final = "events"

CONNECT_SECONDS: Final = 10.0
CONFIRM_SECONDS: Final = 10.0
"""A broker in alarm neither confirms nor refuses."""

CLOSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class AmqpTransport:
    """The broker: ``amqp(s)://publisher:password@host/vhost``, one URL for each of its nodes.

    Raises:
        ValueError: a URL can't be used; the text repeats no part of it.
    """

    urls: Sequence[str] = field(repr=False)
    name: str = "nexus-publisher"
    """What the broker's management UI shows."""

    def __post_init__(self) -> None:
        """Refuse what could never be connected to."""
        if not self.urls or isinstance(self.urls, str):
            raise ValueError("the broker needs a list of URLs")
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
                raise ValueError("a URL of the broker must be amqp(s)://user:password@host/vhost")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["AmqpSender"]:
        """Return a sender; its connection is kept open between batches."""
        sender = AmqpSender(self.urls, self.name)
        try:
            yield sender
        finally:
            await sender.disconnect()


class AmqpSender:
    """Publishes on one channel, and opens another after every failure."""

    def __init__(self, urls: Sequence[str], name: str) -> None:
        self._urls = urls
        self._name = name
        self._attempts = 0
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None

    async def send(self, batch: Sequence[Entry]) -> BatchAnswer:
        """Publish a batch; each event is confirmed or not by itself."""
        try:
            exchange = await _within(CONNECT_SECONDS, self._connect())
            # aiormq matches a returned message by its id: one id is in flight only once.
            first = {entry.event_id: index for index, entry in reversed(list(enumerate(batch)))}
            indexes = sorted(first.values())
            errors = await _publish_all(exchange, [batch[index] for index in indexes])
        except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception
            await self.disconnect()
            return BatchAnswer(failure=_failure(error))
        confirmed = {index for index, error in zip(indexes, errors, strict=True) if error is None}
        failures = [_failure(error) for error in errors if error is not None]
        if failures:
            await self.disconnect()
        # One forbidden or too large message ends the channel, and fails the others with it.
        worst = max(failures, key=lambda failure: failure.trouble.value, default=None)
        return BatchAnswer(frozenset(confirmed), failure=worst)

    async def disconnect(self) -> None:
        """Close the connection without an error, whatever state it is in."""
        connection, self._connection = self._connection, None
        self._channel = self._exchange = None
        if connection is not None:
            with suppress(Exception):
                await _within(CLOSE_SECONDS, connection.close())

    async def _connect(self) -> AbstractExchange:
        if self._exchange is None or self._channel is None or self._channel.is_closed:
            await self.disconnect()
            url = self._urls[self._attempts % len(self._urls)]
            self._attempts += 1
            self._connection = await aio_pika.connect(
                url,
                client_properties={"connection_name": self._name},
                connection_class=_Connection,
            )
            self._channel = await self._connection.channel(
                publisher_confirms=True, on_return_raises=True
            )
            self._exchange = await self._channel.get_exchange(EXCHANGE, ensure=False)
        return self._exchange


class _Connection(aio_pika.Connection):
    """A connection that the sender closes, and the garbage collector does not.

    The collector runs in any thread of the host. aio-pika would then close in the host's event
    loop, or warn on its standard error.
    """

    @override
    def __del__(self) -> None:
        """Do nothing."""


async def _publish_all(
    exchange: AbstractExchange, batch: Sequence[Entry]
) -> Sequence[BaseException | None]:
    """Publish concurrently; return the error of each event, or ``None`` if it was confirmed."""
    tasks = [asyncio.ensure_future(_publish(exchange, entry)) for entry in batch]
    try:
        await asyncio.wait(tasks, timeout=CONFIRM_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
    return [_error_of(task) for task in tasks]


async def _publish(exchange: AbstractExchange, entry: Entry) -> None:
    message = aio_pika.Message(
        entry.body,
        content_type=CONTENT_TYPE,
        message_id=str(entry.event_id),
        type=entry.type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await exchange.publish(message, entry.type, mandatory=True)


def _error_of(task: "asyncio.Future[None]") -> BaseException | None:
    if not task.done():
        return TimeoutError()
    # aiormq cancels who waits for a connection that got stuck.
    return ConnectionError() if task.cancelled() else task.exception()


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` for a limited time; its own cancellation, by aiormq, is an error.

    Raises:
        TimeoutError: it takes longer.
        ConnectionError: the connection got stuck.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        done = task.done()
        task.cancel()
    if not done:
        raise TimeoutError
    if task.cancelled():
        raise ConnectionError
    return task.result()


_CAUSES: Final[Sequence[tuple[tuple[type[BaseException], ...], Trouble, str]]] = (
    (
        (exceptions.ChannelPreconditionFailed,),
        Trouble.TOO_LARGE,
        "the broker refuses the message: PRECONDITION_FAILED",
    ),
    (
        (exceptions.ChannelAccessRefused,),
        Trouble.CONFIGURATION,
        "the broker's user may not publish this type",
    ),
    (
        (exceptions.PublishError, exceptions.ChannelNotFoundEntity),
        Trouble.CONFIGURATION,
        "no queue takes this type, or the exchange is missing: is the topology applied?",
    ),
    (
        (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError),
        Trouble.CONFIGURATION,
        "the broker refuses the user or its password",
    ),
    (
        # aiormq does not expect a refusal in answer to Connection.Open, which names the vhost.
        (exceptions.ConnectionNotAllowed, exceptions.InvalidFrameError),
        Trouble.CONFIGURATION,
        "the vhost is missing or not this user's",
    ),
    ((TimeoutError,), Trouble.OUTAGE, "the broker does not answer in time"),
)


def _failure(error: BaseException) -> Failure:
    """Return what an error means; its own text may quote a message or a login."""
    for kinds, trouble, cause in _CAUSES:
        if isinstance(error, kinds):
            return Failure(trouble, cause)
    return Failure(Trouble.OUTAGE, f"the broker is not reachable: {type(error).__name__}")
