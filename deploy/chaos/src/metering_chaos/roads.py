"""TCP proxies between a service and what it needs, which can be cut, held up and closed."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from local_stack.ports import LOOPBACK, free_ports
from local_stack.urls import Address

_CHUNK = 1 << 16
# The system may take some connections for a listener that accepts none.
_TAKEN_AT_MOST = 16


class Way(StrEnum):
    """A direction of traffic."""

    THERE = "there"
    BACK = "back"


@dataclass(eq=False)
class _Journey:
    """One client's connection and the one made for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(eq=False)
class Road:
    """A proxy on ``port`` of the loopback interface; ``leads_to`` may be set later.

    With ``bytes_per_second`` it is slow, each connection and way by itself; ``crawled`` counts the
    bytes that passed so, ``unanswered`` the connections that it took and said nothing to.
    """

    name: str
    port: int
    leads_to: Address | None = None
    bytes_per_second: float | None = None
    crawled: int = 0
    unanswered: int = 0
    _is_mute: bool = False
    _ignoring: list[socket.socket] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _journeys: set[_Journey] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _moving: dict[Way, asyncio.Event] = field(
        default_factory=lambda: {way: asyncio.Event() for way in Way}
    )

    @property
    def address(self) -> Address:
        """Where clients connect to."""
        return Address(LOOPBACK, self.port)

    @property
    def journeys(self) -> int:
        """How many connections there are."""
        return len(self._journeys)

    @property
    def ports_there(self) -> frozenset[int]:
        """The ports by which the server knows the connections."""
        names = (each.server.get_extra_info("sockname") for each in self._journeys)
        return frozenset(name[1] for name in names if name is not None)

    async def open(self) -> None:
        """Take connections, and let traffic move, as fast as it can."""
        self.release()
        self.bytes_per_second = None
        self._is_mute = False
        self._stop_ignoring()
        if self._server is None:
            self._server = await asyncio.start_server(self._travel, LOOPBACK, self.port)

    async def close(self) -> None:
        """Refuse connections, and reset those there are."""
        self._stop_ignoring()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def ignore(self) -> None:
        """Answer no attempt to connect, as if packets were dropped, and reset what there is."""
        await self.close()
        listener = socket.create_server((LOOPBACK, self.port), backlog=0)
        self._ignoring.append(listener)
        for _ in range(_TAKEN_AT_MOST):
            client = socket.socket()
            client.setblocking(False)
            self._ignoring.append(client)
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.get_running_loop().sock_connect(client, (LOOPBACK, self.port))
            except TimeoutError:
                return
        raise OSError(f"the system still takes connections on port {self.port}")

    def _stop_ignoring(self) -> None:
        for each in self._ignoring:
            each.close()
        self._ignoring.clear()

    def mute(self) -> None:
        """Say nothing to whoever connects from now on, for ever, and reset what there is."""
        self._is_mute = True
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for journey in tuple(self._journeys):
            journey.abort()

    def silence(self) -> None:
        """Let the connections there are stand without a byte or an end ever passing again."""
        for journey in self._journeys:
            journey.silent = True

    def hold(self, *ways: Way) -> None:
        """Let nothing pass these ways, both by default; what comes waits."""
        for way in ways or tuple(Way):
            self._moving[way].clear()

    def release(self, *ways: Way) -> None:
        """Let everything pass these ways again, both by default; what waited goes first."""
        for way in ways or tuple(Way):
            self._moving[way].set()

    async def _travel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Cancelled only when all is over; a raised cancellation would be logged as a fault.
            pass
        finally:
            writer.transport.abort()
            if task is not None:
                self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_mute:
            self.unanswered += 1
            while await reader.read(_CHUNK):
                pass
        if self.leads_to is None or self._is_mute:
            return
        back, there = await asyncio.open_connection(self.leads_to.host, self.leads_to.port)
        journey = _Journey(writer, there)
        self._journeys.add(journey)
        ways = [
            asyncio.create_task(self._pump(journey, reader, there, Way.THERE)),
            asyncio.create_task(self._pump(journey, back, writer, Way.BACK)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if journey.silent and ways[0] not in done:
                await ways[0]
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._journeys.discard(journey)
            journey.abort()

    async def _pump(
        self,
        journey: _Journey,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._moving[way].wait()
                if self.bytes_per_second is not None:
                    self.crawled += len(data)
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                if not journey.silent:
                    writer.write(data)
                    await writer.drain()
            if not journey.silent:
                await asyncio.wait_for(_drained(writer), timeout=5)

    async def end(self) -> None:
        """Close the road for good."""
        await self.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _drained(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof():
        writer.write_eof()
    await writer.drain()


@asynccontextmanager
async def open_roads(names: Iterable[str]) -> AsyncIterator[Mapping[str, Road]]:
    """Open a road for each name, leading nowhere yet; all are closed at the end."""
    wanted = tuple(names)
    ports = free_ports(*(None for _ in wanted))
    roads = {name: Road(name, port) for name, port in zip(wanted, ports, strict=True)}
    try:
        for road in roads.values():
            await road.open()
        yield roads
    finally:
        for road in roads.values():
            await road.end()
