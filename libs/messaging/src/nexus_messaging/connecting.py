"""Connects to the broker with a timeout for each address of each host of the URL.

A host that accepts a connection and then does not answer costs one timeout. aiormq itself waits
without a timeout, and tries a second address only if the first refuses the connection.
"""

import asyncio
from asyncio import StreamReaderProtocol
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from typing_extensions import override
from yarl import URL

from nexus_messaging.addresses import Host, hosts_of, url_of
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.deliveries import Deliver, DeliveryReader, Doubt
from nexus_messaging.lookups import look_up
from nexus_messaging.received import Received
from nexus_messaging.refusals import refusal_of

ADDRESS_TIMEOUT: Final = 5.0
"""Seconds for one address, TLS and AMQP handshakes included; and for resolving a host name."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for closing a connection: the broker may not answer."""

OPEN_TIMEOUT: Final = 10.0
"""Seconds for opening a channel on an open connection."""

READ_BUFFER: Final = 1024 * 1024
"""Bytes. asyncio pauses reading by itself at twice as many, and resumes by itself later. The value
is far above the size of a frame: otherwise asyncio would resume reading that a consumer paused."""

HEARTBEAT: Final = 10
"""Seconds; a connection without traffic for three intervals is considered lost."""


class BrokerUnreachableError(Exception):
    """No address of the broker accepted a connection; the text names the causes."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An AMQP connection, and the transport below it, which can stop reading from the broker.

    ``reader`` takes the deliveries of the connection's only consumer from the stream. Without it,
    aiormq reads them.
    """

    amqp: AbstractConnection
    transport: asyncio.Transport
    reader: DeliveryReader | None

    async def consume(
        self, channel: AbstractChannel, queue: str, deliver: Deliver, doubt: Doubt
    ) -> str:
        """Start a consumer and return its tag; ``deliver`` gets what arrives, in order."""
        consumer_tag = uuid4().hex

        async def deliver_one(message: DeliveredMessage) -> None:
            deliver([Received.of(queue, message)])

        if self.reader is not None:
            self.reader.attach(channel, consumer_tag, queue, deliver, doubt)
        await channel.basic_consume(queue, deliver_one, consumer_tag=consumer_tag)
        return consumer_tag

    async def close(self) -> None:
        """Close the connection; abort it after ``CLOSE_TIMEOUT``."""
        closing = asyncio.ensure_future(self.amqp.close())
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
        if not closing.done():
            self.transport.abort()
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()  # an error in closing does not matter: the connection is closed


async def connect(url: str, *, name: str, fast_reading: bool = False) -> Connection:
    """Connect to the first address that answers; the management UI shows ``name``.

    ``fast_reading``: for a connection that consumes; see ``DeliveryReader``.

    Raises:
        BrokerUnreachableError: no address did.
    """
    protocol = DeliveryReader if fast_reading else StreamReaderProtocol
    causes = []
    for host in hosts_of(url):
        host_url = URL(url_of(url, host)).update_query(heartbeat=HEARTBEAT)
        try:
            for address in await _addresses(host):
                try:
                    return await _connect(host_url, _AddressTransport(address, protocol), name)
                except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception
                    causes.append(refusal_of(error))
        except (OSError, TimeoutError) as error:
            causes.append(refusal_of(error))
    raise BrokerUnreachableError("; ".join(dict.fromkeys(causes)))


async def _addresses(host: Host) -> list[str]:
    found = await look_up(host, ADDRESS_TIMEOUT)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connect(url: URL, factory: "_AddressTransport", name: str) -> Connection:
    with stray_cancellation_as_error():
        async with asyncio.timeout(ADDRESS_TIMEOUT):
            amqp = await aiormq.connect(
                url,
                client_properties={"connection_name": name},
                transport_factory=factory,
            )
    transport, protocol = factory.opened
    return Connection(amqp, transport, protocol if isinstance(protocol, DeliveryReader) else None)


class _AddressTransport(aiormq.TransportFactory):
    """Opens the transport to one address; TLS still verifies the host name."""

    opened: tuple[asyncio.Transport, StreamReaderProtocol]

    def __init__(self, address: str, protocol: type[StreamReaderProtocol]) -> None:
        self._address = address
        self._protocol = protocol

    @override
    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        options: dict[str, Any] = {}
        if url.scheme == "amqps":
            options["ssl"] = await kwargs["ssl_context_provider"].get_context()
            options["server_hostname"] = url.host
            options["ssl_shutdown_timeout"] = CLOSE_TIMEOUT
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(READ_BUFFER, loop)
        transport, protocol = await loop.create_connection(
            lambda: self._protocol(reader, loop=loop), self._address, url.port or 0, **options
        )
        self.opened = transport, protocol
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
