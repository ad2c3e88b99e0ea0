"""An outside service: it publishes until the broker confirms, the same message again and again."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import aiormq
from aiormq.abc import AbstractChannel

from metering_chaos.evidence import Wire
from metering_chaos.load import Due

EXCHANGE: Final = "events"
CONNECTED_WITHIN: Final = 5.0
CONFIRMED_WITHIN: Final = 5.0
AT_ONCE: Final = 200

_TROUBLE = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)


class LoadPublisher:
    """Publishes a load by its times; ``confirmed`` is what the broker took."""

    def __init__(self, url: str, load: Sequence[Due]) -> None:
        self._url = url
        self._load = load
        self._next = 0
        self._waiting: list[Wire] = []
        self._channel: AbstractChannel | None = None
        self.confirmed: list[Wire] = []
        self.repeated = 0

    @property
    def unconfirmed(self) -> list[Wire]:
        """What has been published at least once, perhaps, and was not confirmed."""
        return list(self._waiting)

    def again(self, draw: int, most: int) -> int:
        """Put some of what was confirmed long ago in line once more; return how many."""
        start = draw % max(1, len(self.confirmed))
        found = self.confirmed[start : start + most]
        self._waiting += found
        return len(found)

    async def run(self) -> None:
        """Publish the whole load; returns when all of it is confirmed."""
        began = asyncio.get_running_loop().time()
        try:
            while self._waiting or self._next < len(self._load):
                self._take_due(asyncio.get_running_loop().time() - began)
                if not await self._publish_some():
                    await asyncio.sleep(0.1)
        finally:
            await self._leave()

    def _take_due(self, elapsed: float) -> None:
        while self._next < len(self._load) and self._load[self._next].at <= elapsed:
            self._waiting.append(self._load[self._next].wire)
            self._next += 1

    async def _publish_some(self) -> bool:
        """Publish some of what waits; return whether there may be more to do at once."""
        part = self._waiting[:AT_ONCE]
        if not part:
            return False
        try:
            channel = self._channel or await self._connect()
        except _TROUBLE:
            await self._leave()
            return False
        results = await asyncio.gather(
            *(_publish(channel, wire) for wire in part), return_exceptions=True
        )
        taken = [wire for wire, error in zip(part, results, strict=True) if error is None]
        missed = [wire for wire, error in zip(part, results, strict=True) if error is not None]
        self.confirmed += taken
        self.repeated += len(missed)
        self._waiting = missed + self._waiting[len(part) :]
        if missed:
            await self._leave()
        return not missed and bool(self._waiting)

    async def _connect(self) -> AbstractChannel:
        async with asyncio.timeout(CONNECTED_WITHIN):
            connection = await aiormq.connect(self._url)
            try:
                self._channel = await connection.channel(publisher_confirms=True)
            except BaseException:
                await connection.close()
                raise
        return self._channel

    async def _leave(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(*_TROUBLE):
                await asyncio.wait_for(channel.connection.close(), 3)


async def _publish(channel: AbstractChannel, wire: Wire) -> None:
    properties = aiormq.spec.Basic.Properties(
        content_type="application/cloudevents+json",
        message_id=str(wire.event_id),
        message_type=wire.routing_key,
        delivery_mode=2,
    )
    await channel.basic_publish(
        wire.body,
        exchange=EXCHANGE,
        routing_key=wire.routing_key,
        properties=properties,
        timeout=CONFIRMED_WITHIN,
    )
