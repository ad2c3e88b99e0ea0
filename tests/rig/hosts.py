"""Hosts that are silent in each way there is, and names that stand for several addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest

OTHER_LOOPBACK: Final = "127.0.0.2"
"""An address of this machine at which no server of the tests listens."""


@contextmanager
def deaf(address: str = OTHER_LOOPBACK, port: int = 0) -> Iterator[int]:
    """Hold a port that answers no connection attempt, as behind a firewall; yield the port."""
    with socket.socket() as listening:
        listening.bind((address, port))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]  # a full queue: the kernel answers no more
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((address, port))
        try:
            yield port
        finally:
            for each in waiting:
                each.close()


class Mute:
    """A port that accepts connections and says nothing; ``accepted`` counts them."""

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
async def mute(address: str = OTHER_LOOPBACK, port: int = 0) -> AsyncIterator[Mute]:
    """Hold a port that accepts connections and says nothing."""
    held = Mute()
    server = await asyncio.start_server(held.hold, address, port)
    held.port = server.sockets[0].getsockname()[1]
    try:
        yield held
    finally:
        server.close()
        held.close()


def resolve(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, Sequence[str]]) -> None:
    """Have the resolver know ``names``, each by its addresses in order."""
    known = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        addresses = names.get(host, (host,))
        return [found for each in addresses for found in known(each, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
