"""One service's database: a pool of connections and the transaction around each piece of work."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urlencode

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nexus_database.faults import TRY_AGAIN, sqlstate, translated

T = TypeVar("T")

TRIES: Final = 5
STATEMENT_TIMEOUT: Final = 30.0


class Database:
    """Runs pieces of work, each in one transaction that is short and waits for no network.

    The URL may ask for TLS as it does for ``psql``: ``?sslmode=verify-full&sslrootcert=FILE``
    (https://www.postgresql.org/docs/current/libpq-ssl.html).
    """

    def __init__(self, url: str, *, name: str, pool_size: int = 5) -> None:
        address, tls = _parted(make_url(url))
        self.engine: AsyncEngine = create_async_engine(
            address.set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "dsn": tls,
                "timeout": 5,
                "command_timeout": STATEMENT_TIMEOUT,
                "server_settings": {"application_name": name, "timezone": "UTC"},
            },
        )

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction and commit; deadlocks are tried again at once.

        Raises:
            RowRefusedError: a row can never be stored.
            DatabaseUnavailableError: nothing can be done at the moment.
        """
        with translated():
            for _ in range(TRIES - 1):
                try:
                    return await self._once(work)
                except (DBAPIError, asyncpg.PostgresError) as error:
                    if sqlstate(error) not in TRY_AGAIN:
                        raise
            return await self._once(work)

    async def probe(self) -> None:
        """Return if the database answers.

        Raises:
            DatabaseUnavailableError: it does not.
        """
        await self.run(_select_one)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def _once(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self.engine.begin() as connection:
            return await work(connection)


def _parted(url: URL) -> tuple[URL, str]:
    """Part libpq's TLS settings from ``url``; return the rest, and them as a URL with no address.

    The driver knows them in a URL only, while SQLAlchemy would hand them over as arguments, as
    which it knows but ``ssl``.
    """
    names = [name for name in url.query if name.startswith("ssl") and name != "ssl"]
    tls = {name: url.query[name] for name in names}
    return url.difference_update_query(names), f"postgresql://?{urlencode(tls, doseq=True)}"


async def _select_one(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT 1"))
