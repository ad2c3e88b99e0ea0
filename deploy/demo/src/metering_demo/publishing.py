"""Publishing as an outside service does: persistent, mandatory, confirmed, to `events`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import aio_pika

from metering_demo.scenario import Wire

EXCHANGE: Final = "events"
CONTENT_TYPE: Final = "application/cloudevents+json"
AT_ONCE: Final = 100


async def publish(
    amqp_url: str, messages: Sequence[Wire], said: Callable[[int], None] = lambda _: None
) -> int:
    """Publish ``messages`` in order of their slices; return how many the broker confirmed.

    ``said`` is called with the number confirmed so far.
    """
    confirmed = 0
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        for start in range(0, len(messages), AT_ONCE):
            part = messages[start : start + AT_ONCE]
            await asyncio.gather(
                *(exchange.publish(_message(each), each.routing_key, timeout=10) for each in part)
            )
            confirmed += len(part)
            said(confirmed)
    return confirmed


def _message(wire: Wire) -> aio_pika.Message:
    return aio_pika.Message(
        wire.body,
        content_type=CONTENT_TYPE,
        message_id=wire.message_id,
        type=wire.routing_key,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
