"""A TCP line to a server that can be stopped: connected, and silent in both directions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL


class Line:
    """A connection through which nothing passes while it is not ``open``."""

    def __init__(self, server: URL) -> None:
        self.url = server
        self.open = asyncio.Event()
        self.open.set()
        self._server = server

    @classmethod
    @asynccontextmanager
    async def to(cls, server: URL, port: int = 0) -> "AsyncIterator[Line]":
        """Listen, by default on any port, and pass on to ``server`` while the context lasts."""
        line = cls(server)
        async with await asyncio.start_server(line._pass_on, "127.0.0.1", port) as listening:
            line.url = server.with_port(listening.sockets[0].getsockname()[1])
            yield line

    async def _pass_on(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection(self._server.host, self._server.port)
        await asyncio.gather(self._pump(near, to_far), self._pump(far, to_near))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self.open.wait()
            target.write(data)
            await target.drain()
        target.close()
