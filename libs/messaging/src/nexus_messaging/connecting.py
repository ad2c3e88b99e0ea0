"""Connects to the broker with a timeout for each address of each host of the URL.

A host that accepts a connection and then does not answer costs one timeout. aiormq itself waits
without a timeout, and tries a second address only if the first refuses the connection.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiormq
from aiormq.abc import AbstractConnection
from typing_extensions import override
from yarl import URL

from nexus_messaging.addresses import Host, hosts_of, url_of
from nexus_messaging.cancellation import stray_cancellation_as_error
from nexus_messaging.lookups import look_up
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
    """An AMQP connection, and the transport below it, which can stop reading from the broker."""

    amqp: AbstractConnection
    transport: asyncio.Transport

    async def close(self) -> None:
        """Close the connection; abort it after ``CLOSE_TIMEOUT``."""
        closing = asyncio.ensure_future(self.amqp.close())
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
        if not closing.done():
            self.transport.abort()
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()  # an error in closing does not matter: the connection is closed


async def connect(url: str, *, name: str) -> Connection:
    """Connect to the first address that answers; the management UI shows ``name``.

    Raises:
        BrokerUnreachableError: no address did.
    """
    causes = []
    for host in hosts_of(url):
        host_url = URL(url_of(url, host)).update_query(heartbeat=HEARTBEAT)
        try:
            for address in await _addresses(host):
                try:
                    return await _connect(host_url, address, name)
                except Exception as error:  # noqa: BLE001 - aiormq raises even a bare Exception
                    causes.append(refusal_of(error))
        except (OSError, TimeoutError) as error:
            causes.append(refusal_of(error))
    raise BrokerUnreachableError("; ".join(dict.fromkeys(causes)))


async def _addresses(host: Host) -> list[str]:
    found = await look_up(host, ADDRESS_TIMEOUT)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connect(url: URL, address: str, name: str) -> Connection:
    factory = _AddressTransport(address)
    with stray_cancellation_as_error():
        async with asyncio.timeout(ADDRESS_TIMEOUT):
            amqp = await aiormq.connect(
                url,
                client_properties={"connection_name": name},
                transport_factory=factory,
            )
    assert factory.opened is not None
    return Connection(amqp, factory.opened)


class _AddressTransport(aiormq.TransportFactory):
    """Opens the transport to one address; TLS still verifies the host name."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.opened: asyncio.Transport | None = None

    @override
    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        options: dict[str, Any] = {"limit": READ_BUFFER}
        if url.scheme == "amqps":
            options["ssl"] = await kwargs["ssl_context_provider"].get_context()
            options["server_hostname"] = url.host
            options["ssl_shutdown_timeout"] = CLOSE_TIMEOUT
        reader, writer = await asyncio.open_connection(self._address, url.port, **options)
        assert isinstance(writer.transport, asyncio.Transport)
        self.opened = writer.transport
        return reader, writer
