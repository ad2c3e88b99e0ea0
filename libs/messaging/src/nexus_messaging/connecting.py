"""Connecting to the broker within a limit: every host of the URL, every address of a host, in turn.

A host that accepts a connection and then stays silent costs its own time limit and no more. aiormq
alone waits for its answer without a limit, and tries a second address only if the first refuses.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiormq
from aiormq.abc import AbstractConnection
from yarl import URL

from nexus_messaging.addresses import Host, hosts_of, url_of
from nexus_messaging.cancellation import only_if_asked_for
from nexus_messaging.lookups import look_up
from nexus_messaging.refusals import refusal_of

ADDRESS_TIMEOUT: Final = 5.0
"""Seconds for one address, TLS and AMQP handshake included; and for looking up a host's name."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for closing: the broker may be silent."""

OPEN_TIMEOUT: Final = 10.0
"""Seconds for opening a channel on a connection that stands."""

READ_BUFFER: Final = 1024 * 1024
"""Bytes that asyncio buffers before it stops reading by itself, at twice as many, and later goes on
by itself. Far above a frame, or it would soon undo every pause of ours."""

HEARTBEAT: Final = 10
"""Seconds; a connection that stays silent for three of them counts as lost."""


class BrokerUnreachableError(Exception):
    """No address of the broker led to a connection; the text says why."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An AMQP connection, and the transport below it, which can stop reading from the broker."""

    amqp: AbstractConnection
    transport: asyncio.Transport

    async def close(self) -> None:
        """Close it, without waiting for a broker that does not answer."""
        closing = asyncio.ensure_future(self.amqp.close())
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
        if not closing.done():
            self.transport.abort()
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()  # a connection that ended badly is as closed as any


async def connect(url: str, *, name: str) -> Connection:
    """Return a connection to the first address that answers; ``name`` is shown by the broker.

    Raises:
        BrokerUnreachableError: none did.
    """
    causes = []
    for host in hosts_of(url):
        host_url = URL(url_of(url, host)).update_query(heartbeat=HEARTBEAT)
        try:
            for address in await _addresses(host):
                try:
                    return await _connect(host_url, address, name)
                except Exception as error:  # noqa: BLE001 - aiormq lets even a bare Exception out
                    causes.append(refusal_of(error))
        except (OSError, TimeoutError) as error:
            causes.append(refusal_of(error))
    raise BrokerUnreachableError("; ".join(dict.fromkeys(causes)))


async def _addresses(host: Host) -> list[str]:
    found = await look_up(host, ADDRESS_TIMEOUT)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connect(url: URL, address: str, name: str) -> Connection:
    factory = _AddressTransport(address)
    with only_if_asked_for():
        async with asyncio.timeout(ADDRESS_TIMEOUT):
            amqp = await aiormq.connect(
                url,
                client_properties={"connection_name": name},
                transport_factory=factory,
            )
    assert factory.opened is not None
    return Connection(amqp, factory.opened)


class _AddressTransport(aiormq.TransportFactory):
    """Opens the transport to one address of a host, whose name TLS still verifies."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.opened: asyncio.Transport | None = None

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
