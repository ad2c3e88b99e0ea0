"""An outside service: it repeats each message until the broker confirms it."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import aiormq
from aiormq.abc import AbstractChannel

from local_stack.publishing import CONTENT_TYPE, EXCHANGE
from metering_chaos.evidence import Message
from metering_chaos.load import Scheduled

CONNECT_SECONDS: Final = 5.0
CONFIRM_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 3.0
CONCURRENT_PUBLISHES: Final = 200

_CONNECTION_ERRORS = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)


class LoadPublisher:
    """Publishes a load by its schedule; ``confirmed`` is what the broker has confirmed."""

    def __init__(self, url: str, load: Sequence[Scheduled]) -> None:
        self._url = url
        self._load = load
        self._next = 0
        self._waiting: list[Message] = []
        self._channel: AbstractChannel | None = None
        self.confirmed: list[Message] = []

    @property
    def unconfirmed(self) -> list[Message]:
        """What is due and not confirmed; it may have been published."""
        return list(self._waiting)

    def publish_again(self, draw: int, most: int) -> None:
        """Schedule up to ``most`` confirmed messages once more, from a random place on."""
        start = draw % max(1, len(self.confirmed))
        self._waiting += self.confirmed[start : start + most]

    async def run(self) -> None:
        """Publish the whole load; returns when all of it is confirmed."""
        began = asyncio.get_running_loop().time()
        try:
            while self._waiting or self._next < len(self._load):
                self._take_due(asyncio.get_running_loop().time() - began)
                if not await self._publish_some():
                    await asyncio.sleep(0.1)
        finally:
            await self._disconnect()

    def _take_due(self, elapsed: float) -> None:
        while self._next < len(self._load) and self._load[self._next].at <= elapsed:
            self._waiting.append(self._load[self._next].message)
            self._next += 1

    async def _publish_some(self) -> bool:
        """Publish some of what waits; return whether there may be more to do at once."""
        part = self._waiting[:CONCURRENT_PUBLISHES]
        if not part:
            return False
        try:
            channel = self._channel or await self._connect()
        except _CONNECTION_ERRORS:
            await self._disconnect()
            return False
        results = await asyncio.gather(
            *(_publish(channel, message) for message in part), return_exceptions=True
        )
        failed: list[Message] = []
        for message, error in zip(part, results, strict=True):
            (self.confirmed if error is None else failed).append(message)
        self._waiting = failed + self._waiting[len(part) :]
        if failed:
            await self._disconnect()
        return not failed and bool(self._waiting)

    async def _connect(self) -> AbstractChannel:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await aiormq.connect(self._url)
            try:
                self._channel = await connection.channel(publisher_confirms=True)
            except BaseException:
                await connection.close()
                raise
        return self._channel

    async def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(*_CONNECTION_ERRORS):
                await asyncio.wait_for(channel.connection.close(), CLOSE_SECONDS)


async def _publish(channel: AbstractChannel, message: Message) -> None:
    properties = aiormq.spec.Basic.Properties(
        content_type=CONTENT_TYPE,
        message_id=str(message.event_id),
        message_type=message.routing_key,
        delivery_mode=2,
    )
    await channel.basic_publish(
        message.body,
        exchange=EXCHANGE,
        routing_key=message.routing_key,
        properties=properties,
        timeout=CONFIRM_SECONDS,
    )
