"""A delivery as the consumer received it."""

from aiormq.abc import AbstractChannel, DeliveredMessage

from nexus_messaging.message import Delivery
from nexus_messaging.properties import Properties


class Received(Delivery):
    """A delivery with its delivery tag, and the channel on which the tag is valid."""

    __slots__ = ("channel", "tag")

    def __init__(
        self,
        channel: AbstractChannel,
        tag: int,
        queue: str,
        exchange: str,
        body: bytes,
        properties: Properties | bytes,
        *,
        redelivered: bool,
    ) -> None:
        super().__init__(queue, exchange, body, properties, redelivered=redelivered)
        self.channel = channel
        self.tag = tag

    @classmethod
    def of(cls, queue: str, message: DeliveredMessage) -> "Received":
        """Return a delivery from ``queue`` that aiormq has read."""
        assert message.delivery_tag is not None
        return cls(
            message.channel,
            message.delivery_tag,
            queue,
            message.exchange or "",
            bytes(message.body),
            message.header.properties,
            redelivered=bool(message.redelivered),
        )
