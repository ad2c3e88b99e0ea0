"""Hosts that a database may be at: silent ones, and names with several addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

SILENT = "127.0.0.2"
"""An address of this machine at which PostgreSQL does not listen."""

Resolve = Callable[..., list[Any]]


@asynccontextmanager
async def silent(port: int, address: str = SILENT) -> AsyncIterator[list[int]]:
    """Take connections at ``address`` and never answer; yield a list with one item for each."""
    taken: list[int] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(port)
        while await reader.read(65536):
            pass
        writer.close()

    async with await asyncio.start_server(say_nothing, address, port):
        yield taken


def resolve(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, Sequence[str]]) -> None:
    """Have the resolver know ``names``, each by its addresses in order."""
    known: Resolve = socket.getaddrinfo

    def answer(host: str, *arguments: Any, **options: Any) -> list[Any]:
        addresses = names.get(host, (host,))
        return [each for at in addresses for each in known(at, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
