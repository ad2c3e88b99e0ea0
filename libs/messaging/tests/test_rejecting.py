"""A message that is too large to be copied is rejected, unless the connection closes first."""

import aiormq
import pytest
from structlog.testing import capture_logs

from nexus_messaging.connecting import Connection
from nexus_messaging.consuming_channel import ConsumingChannel
from nexus_messaging.deliveries import DeliveryReader
from nexus_messaging.received import Received
from nexus_messaging.topology import MAX_MESSAGE_BYTES
from support.memory_broker import MemoryTransports
from support.waiting import eventually

NO_PROPERTIES = bytes(14)


async def test_reject_on_a_connection_that_closes_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker delivers the message again; aiormq cancels what still waits to be written."""
    monkeypatch.setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.1)
    transports = MemoryTransports(DeliveryReader)
    amqp = await aiormq.connect("amqp://memory/?heartbeat=0", transport_factory=transports)
    connection = Connection(amqp, transports.broker, None)
    channel = ConsumingChannel(
        connection,
        await amqp.channel(publisher_confirms=False),
        "a queue",
        prefetch=1,
        deliver=lambda _received: None,
        on_cancelled=lambda: None,
    )
    body = bytes(MAX_MESSAGE_BYTES + 1)

    with capture_logs() as logged:
        transports.broker.protocol.pause_writing()  # the frame waits in the socket's buffer
        channel.accept(
            [Received(channel.amqp, 1, "a queue", "", body, NO_PROPERTIES, redelivered=False)]
        )
        await amqp.close()
        await eventually(lambda: _rejecting(channel), lambda number: number == 0)

    assert [line["event"] for line in logged] == ["message_too_large", "ack_lost"]


async def _rejecting(channel: ConsumingChannel) -> int:
    return len(channel._rejecting)
