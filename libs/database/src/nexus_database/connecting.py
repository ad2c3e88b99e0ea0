"""Sessions with a server that can write, at whichever host and address one answers.

A host that is silent costs its own time limit and no more: the next one is tried after it. asyncpg
alone waits for a name's first address, and one limit spans all hosts.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from weakref import WeakSet

import asyncpg

from nexus_database.faults import (
    FAULTS,
    DatabaseUnavailableError,
    ReadsOnlyError,
    cause_of,
    sqlstate,
    unavailable,
)
from nexus_database.url import DatabaseUrl
from nexus_messaging.addresses import Host
from nexus_messaging.lookups import look_up

STATEMENT_TIMEOUT: Final = 30.0
"""Seconds."""

SESSION_SETTINGS: Final = {
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
"""What bounds how long a transaction waits for others, and others for one whose process was frozen
or whose machine has vanished: without these its locks last for hours.

They are set by a statement, not at the start of the session: a pooler refuses them there."""

SOCKET_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 20_000),
)
"""The same the other way round, for a server that has vanished: seconds, but for the last one's
milliseconds. Systems that lack one do without."""

REFUSED_FOR_GOOD: Final = ("28", "3D")
"""SQLSTATE classes of a refused login and a missing database: libpq tries no further host after
them either."""

PREPARE: Final = """
SELECT count(set_config(name, value, false)),
       current_setting('transaction_read_only') = 'on' AS reads_only
  FROM unnest($1::text[], $2::text[]) AS wanted(name, value)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """One address of a host; a folder of sockets has none."""

    host: Host
    family: int = socket.AF_UNSPEC
    address: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return str(Host(self.address[0], self.host.port) if self.address else self.host)


class Connector:
    """Opens sessions at the first host that can write; the last one that could is tried first."""

    def __init__(self, url: DatabaseUrl, name: str) -> None:
        self._url = url
        self._settings = {"application_name": name, "timezone": "UTC", **url.session}
        self._last: Place | None = None
        self._sessions: WeakSet[asyncpg.Connection] = WeakSet()

    async def connect(self) -> asyncpg.Connection:
        """Open a session.

        Raises:
            DatabaseUnavailableError: none can be opened; the text says why, for each address.
        """
        faults: dict[str, Exception] = {}
        for host in sorted(self._url.hosts, key=self._was_not_last):
            for place in await self._places(host, faults):
                try:
                    async with asyncio.timeout(self._url.connect_seconds):
                        session = await self._opened(place)
                except FAULTS as error:
                    faults[str(place)] = error
                    if (sqlstate(error) or "").startswith(REFUSED_FOR_GOOD):
                        raise unavailable(error) from None
                else:
                    self._last = place
                    self._sessions.add(session)
                    return session
        if len(faults) == 1:
            raise unavailable(*faults.values())
        causes = "; ".join(f"{place}: {cause_of(error)}" for place, error in faults.items())
        raise DatabaseUnavailableError(f"no server of the database can be used: {causes}")

    def abort(self) -> None:
        """End the sessions that are still open, without a word to a server that may be silent."""
        for session in self._sessions:
            session.terminate()

    async def _places(self, host: Host, faults: dict[str, Exception]) -> list[Place]:
        """Return each address of ``host``; if there is none, note why in ``faults``."""
        if host.name.startswith("/"):
            return [Place(host)]
        try:
            found = await look_up(host, self._url.connect_seconds)
        except (OSError, TimeoutError) as error:
            faults[str(host)] = error
            return []
        places = [Place(host, family, address) for family, _, _, _, address in found]
        return sorted(places, key=lambda each: each != self._last)

    def _was_not_last(self, host: Host) -> bool:
        return self._last is None or self._last.host != host

    async def _opened(self, place: Place) -> asyncpg.Connection:
        session = await asyncpg.connect(
            f"postgresql://?{urlencode(self._url.tls)}",
            host=place.host.name,
            port=place.host.port,
            user=self._url.user,
            password=self._url.password,
            database=self._url.database,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings=self._settings,
            loop=_Dialing(asyncio.get_running_loop(), place),
        )
        try:
            names, values = list(SESSION_SETTINGS), list(SESSION_SETTINGS.values())
            prepared = await session.fetchrow(PREPARE, names, values)
        except BaseException:
            session.terminate()
            raise
        if prepared["reads_only"]:
            session.terminate()
            raise ReadsOnlyError
        return session


class _Dialing:
    """The running loop, but for the connections it makes: they go to one place.

    asyncpg takes a host's name, which it needs for TLS and password files, and no address beside
    it. All that it does with its loop but ``create_connection`` passes through.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place) -> None:
        self._loop = loop
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, protocol: Callable[[], asyncio.Protocol], host: str, _port: int, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to the place, and speak TLS with it, if at all, as with ``host``."""
        if "ssl" in options:
            options["server_hostname"] = host
        connected = await self._dialed()
        try:
            return await self._loop.create_connection(protocol, sock=connected, **options)
        except BaseException:
            connected.close()
            raise

    async def _dialed(self) -> socket.socket:
        dialed = socket.socket(self._place.family, socket.SOCK_STREAM)
        try:
            dialed.setblocking(False)
            dialed.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in SOCKET_OPTIONS:
                if hasattr(socket, name):
                    dialed.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            await self._loop.sock_connect(dialed, self._place.address)
        except BaseException:
            dialed.close()
            raise
        return dialed
