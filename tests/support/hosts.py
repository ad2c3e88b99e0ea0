"""Servers that do not answer, each in its way, and names that resolve to several addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest

OTHER_LOOPBACK: Final = "127.0.0.2"
"""A loopback address at which no server of the tests listens."""


@contextmanager
def unreachable_port(address: str = OTHER_LOOPBACK, port: int = 0) -> Iterator[int]:
    """Hold a port that answers no connection attempt, as behind a firewall; yield the port."""
    with socket.socket() as listening:
        listening.bind((address, port))
        listening.listen(0)
        port = listening.getsockname()[1]
        # With its backlog full, the kernel answers no further attempt.
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((address, port))
        try:
            yield port
        finally:
            for each in waiting:
                each.close()


class SilentServer:
    """Accepts connections and sends nothing; ``accepted`` counts the connections."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a connection to its end."""
        self.accepted += 1
        self._writers.append(writer)
        await reader.read()
        writer.close()

    def close(self) -> None:
        """Close the connections."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def silent_server(
    address: str = OTHER_LOOPBACK, port: int = 0
) -> AsyncIterator[SilentServer]:
    """Run a server that accepts connections and sends nothing."""
    silent = SilentServer()
    server = await asyncio.start_server(silent.hold, address, port)
    silent.port = server.sockets[0].getsockname()[1]
    try:
        yield silent
    finally:
        server.close()
        silent.close()


def resolve(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, Sequence[str]]) -> None:
    """Resolve each of ``names`` to its addresses, in their order."""
    resolver = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        addresses = names.get(host, (host,))
        return [found for each in addresses for found in resolver(each, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
