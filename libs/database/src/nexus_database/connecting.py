"""Opens sessions at the first host and address that answers and accepts writes.

Each address has its own time limit, after which the next one is tried. asyncpg by itself tries only
the first address of a name, and its one limit applies to all hosts together.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from weakref import WeakSet

import asyncpg
from typing_extensions import override

from nexus_database.faults import (
    FAULTS,
    DatabaseUnavailableError,
    ReadOnlyError,
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
"""Limits on how long a transaction waits for locks, and on how long it keeps them if its process is
frozen or its machine is lost. Without these limits such locks last for hours.

A statement sets them after the session has started, because a pooler refuses them at the start."""

READER_SETTINGS: Final = {
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "repeatable read",
    "statement_timeout": "5s",
}
"""Of sessions that only read: nothing can be written, the statements of a transaction see one state
of the database, and none of them takes long. A standby serves them as well as a primary."""

SOCKET_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 20_000),
)
"""The same limits on the client's side, for a lost server. In seconds, except ``TCP_USER_TIMEOUT``,
which is in milliseconds. Options that the system lacks are skipped."""

LOGIN_REFUSED: Final = ("28", "3D")
"""SQLSTATE classes of a refused login and a missing database. No further host is tried after them,
as in libpq."""

PREPARE: Final = """
SELECT count(set_config(name, value, false)),
       current_setting('transaction_read_only') = 'on' AS reads_only
  FROM unnest($1::text[], $2::text[]) AS wanted(name, value)
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a host, or a folder of sockets, which has no address."""

    host: Host
    family: int = socket.AF_UNSPEC
    address: tuple[Any, ...] = ()

    @override
    def __str__(self) -> str:
        return str(Host(self.address[0], self.host.port) if self.address else self.host)


class Connector:
    """Opens sessions at the first host that accepts writes; starts with the last one that did.

    With ``only_reads`` the first host that answers will do, and the sessions can't write.
    """

    def __init__(self, url: DatabaseUrl, name: str, *, only_reads: bool = False) -> None:
        self._url = url
        self._only_reads = only_reads
        self._prepared = SESSION_SETTINGS | (READER_SETTINGS if only_reads else {})
        self._settings = {"application_name": name, "timezone": "UTC", **url.session}
        self._last: Endpoint | None = None
        self._sessions: WeakSet[asyncpg.Connection] = WeakSet()

    async def connect(self) -> asyncpg.Connection:
        """Open a session.

        Raises:
            DatabaseUnavailableError: no address worked; the text gives the cause for each.
        """
        faults: dict[str, Exception] = {}
        for host in sorted(self._url.hosts, key=self._is_not_last):
            for endpoint in await self._resolve(host, faults):
                try:
                    async with asyncio.timeout(self._url.connect_seconds):
                        session = await self._open_session(endpoint)
                except FAULTS as error:
                    faults[str(endpoint)] = error
                    if (sqlstate(error) or "").startswith(LOGIN_REFUSED):
                        raise unavailable(error) from None
                else:
                    self._last = endpoint
                    self._sessions.add(session)
                    return session
        if len(faults) == 1:
            raise unavailable(*faults.values())
        causes = "; ".join(f"{endpoint}: {cause_of(error)}" for endpoint, error in faults.items())
        raise DatabaseUnavailableError(f"no server of the database can be used: {causes}")

    def abort(self) -> None:
        """Drop all open sessions without notifying the server, which may be silent."""
        for session in self._sessions:
            session.terminate()

    async def _resolve(self, host: Host, faults: dict[str, Exception]) -> list[Endpoint]:
        """Return the addresses of ``host``; if there is none, record the cause in ``faults``."""
        if host.name.startswith("/"):
            return [Endpoint(host)]
        try:
            found = await look_up(host, self._url.connect_seconds)
        except (OSError, TimeoutError) as error:
            faults[str(host)] = error
            return []
        endpoints = [Endpoint(host, family, address) for family, _, _, _, address in found]
        return sorted(endpoints, key=lambda each: each != self._last)

    def _is_not_last(self, host: Host) -> bool:
        return self._last is None or self._last.host != host

    async def _open_session(self, endpoint: Endpoint) -> asyncpg.Connection:
        session = await asyncpg.connect(
            f"postgresql://?{urlencode(self._url.tls)}",
            host=endpoint.host.name,
            port=endpoint.host.port,
            user=self._url.user,
            password=self._url.password,
            database=self._url.database,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings=self._settings,
            loop=_LoopWithAddress(asyncio.get_running_loop(), endpoint),
        )
        try:
            names, values = list(self._prepared), list(self._prepared.values())
            prepared = await session.fetchrow(PREPARE, names, values)
        except BaseException:
            session.terminate()
            raise
        if prepared["reads_only"] and not self._only_reads:
            session.terminate()
            raise ReadOnlyError
        return session


class _LoopWithAddress:
    """The running event loop, except that its connections go to one endpoint.

    asyncpg needs the host name for TLS and password files, and accepts no separate address. All
    methods except ``create_connection`` are passed through.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, protocol: Callable[[], asyncio.Protocol], host: str, _port: int, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to the endpoint; with TLS, verify its certificate for ``host``."""
        if "ssl" in options:
            options["server_hostname"] = host
        connected = await self._open_socket()
        try:
            return await self._loop.create_connection(protocol, sock=connected, **options)
        except BaseException:
            connected.close()
            raise

    async def _open_socket(self) -> socket.socket:
        opened = socket.socket(self._endpoint.family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in SOCKET_OPTIONS:
                if hasattr(socket, name):
                    opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            await self._loop.sock_connect(opened, self._endpoint.address)
        except BaseException:
            opened.close()
            raise
        return opened
