"""Addresses that answer nothing: the ways in which a host can be there and not be there."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

OTHER_LOOPBACK = "127.0.0.2"


@contextmanager
def deaf(address: str, port: int = 0) -> Iterator[int]:
    """Hold a port that answers no connection attempt at all, as behind a firewall; yield it."""
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


@asynccontextmanager
async def mute(address: str, port: int = 0) -> AsyncIterator[int]:
    """Hold a port that accepts connections and says nothing; yield it."""
    held = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read()

    server = await asyncio.start_server(hold, address, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in held:
            writer.close()


def resolve(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """Have ``name`` stand for ``addresses``, in this order, as a name server would."""
    known = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        hosts = addresses if host == name else (host,)
        return [found for each in hosts for found in known(each, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
