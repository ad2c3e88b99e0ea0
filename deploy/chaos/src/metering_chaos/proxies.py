"""TCP proxies between a process and a server, which can reset, hold up and refuse connections."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from local_stack.ports import LOOPBACK, free_ports
from local_stack.urls import Address

_CHUNK_BYTES = 1 << 16
_DRAIN_SECONDS = 5.0
# The kernel may complete some handshakes for a listener that accepts no connection.
_BACKLOG_AT_MOST = 16


class Direction(StrEnum):
    """A direction of traffic."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(eq=False)
class _Connection:
    """A client's connection and the one made for it to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    blackholed: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """A proxy on ``port`` of the loopback interface; ``upstream`` may be set later.

    ``bytes_per_second`` limits each connection and direction by itself; ``None`` is no limit.
    ``passed_bytes`` counts what passed, ``slowed_bytes`` what came under a limit, ``unanswered``
    the connections that were accepted and got no answer. Bytes to a client that contain ``cut_at``
    are not passed, once: their connection is reset instead, or with ``silent_at`` passes nothing
    any more.
    """

    name: str
    port: int
    upstream: Address | None = None
    bytes_per_second: float | None = None
    cut_at: bytes | None = None
    silent_at: bytes | None = None
    passed_bytes: int = 0
    slowed_bytes: int = 0
    unanswered: int = 0
    _answering: bool = True
    _backlog: list[socket.socket] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _connections: set[_Connection] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _flowing: dict[Direction, asyncio.Event] = field(
        default_factory=lambda: {direction: asyncio.Event() for direction in Direction}
    )

    @property
    def address(self) -> Address:
        """Where clients connect to."""
        return Address(LOOPBACK, self.port)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def upstream_ports(self) -> frozenset[int]:
        """The client ports of the connections as the server sees them."""
        names = (each.server.get_extra_info("sockname") for each in self._connections)
        return frozenset(name[1] for name in names if name is not None)

    async def open(self) -> None:
        """Accept connections and pass everything on without a limit: the normal state."""
        self.release()
        self.bytes_per_second = None
        self._answering = True
        self._close_backlog()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def close(self) -> None:
        """Refuse connections, and reset the present ones."""
        self._close_backlog()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    async def ignore_handshakes(self) -> None:
        """Answer no attempt to connect, as if packets were dropped; reset what is connected.

        A listener whose backlog is full does not answer further attempts.
        """
        await self.close()
        listener = socket.create_server((LOOPBACK, self.port), backlog=0)
        self._backlog.append(listener)
        for _ in range(_BACKLOG_AT_MOST):
            client = socket.socket()
            client.setblocking(False)
            self._backlog.append(client)
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.get_running_loop().sock_connect(client, (LOOPBACK, self.port))
            except TimeoutError:
                return
        raise OSError(f"the kernel still accepts connections on port {self.port}")

    def accept_without_answer(self) -> None:
        """Accept new connections, never send them a byte, and reset the present ones."""
        self._answering = False
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        for connection in tuple(self._connections):
            connection.reset()

    def blackhole(self) -> None:
        """Keep the present connections open, and never pass a byte or an end on them again."""
        for connection in self._connections:
            connection.blackholed = True

    def hold(self, *directions: Direction) -> None:
        """Hold what comes from these directions, both by default, until it is released."""
        for direction in directions or tuple(Direction):
            self._flowing[direction].clear()

    def release(self, *directions: Direction) -> None:
        """Pass traffic in these directions again, both by default; what was held goes first."""
        for direction in directions or tuple(Direction):
            self._flowing[direction].set()

    async def end(self) -> None:
        """Close the proxy for good."""
        await self.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Cancelled only by `end`; a cancellation raised from here would be logged as an error.
            pass
        finally:
            writer.transport.abort()
            if task is not None:
                self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._answering:
            self.unanswered += 1
            while await reader.read(_CHUNK_BYTES):
                pass
        if self.upstream is None or not self._answering:
            return
        from_server, to_server = await asyncio.open_connection(
            self.upstream.host, self.upstream.port
        )
        connection = _Connection(writer, to_server)
        self._connections.add(connection)
        pumps = [
            asyncio.create_task(self._pump(connection, reader, to_server, Direction.TO_SERVER)),
            asyncio.create_task(self._pump(connection, from_server, writer, Direction.TO_CLIENT)),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if connection.blackholed and pumps[0] not in done:
                await pumps[0]
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._connections.discard(connection)
            connection.reset()

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing[direction].wait()
                if direction is Direction.TO_CLIENT and self.cut_at and self.cut_at in data:
                    self.cut_at = None
                    return
                if direction is Direction.TO_CLIENT and self.silent_at and self.silent_at in data:
                    self.silent_at = None
                    connection.blackholed = True
                if self.bytes_per_second is not None:
                    self.slowed_bytes += len(data)
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                if not connection.blackholed:
                    writer.write(data)
                    await writer.drain()
                    self.passed_bytes += len(data)
            if not connection.blackholed:
                await asyncio.wait_for(_pass_end(writer), timeout=_DRAIN_SECONDS)

    def _close_backlog(self) -> None:
        for each in self._backlog:
            each.close()
        self._backlog.clear()


async def _pass_end(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof():
        writer.write_eof()
    await writer.drain()


@asynccontextmanager
async def open_proxies(names: Iterable[str]) -> AsyncIterator[Mapping[str, Proxy]]:
    """Open a proxy for each name, still without a server behind it; all are closed at the end."""
    wanted = tuple(names)
    ports = free_ports(*(None for _ in wanted))
    proxies = {name: Proxy(name, port) for name, port in zip(wanted, ports, strict=True)}
    try:
        for proxy in proxies.values():
            await proxy.open()
        yield proxies
    finally:
        for proxy in proxies.values():
            await proxy.end()
