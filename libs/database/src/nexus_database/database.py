"""One service's database: a pool of connections and the transaction around each piece of work."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nexus_database.faults import TRY_AGAIN, sqlstate, translated

T = TypeVar("T")

TRIES: Final = 5
STATEMENT_TIMEOUT: Final = 30.0


class Database:
    """Runs pieces of work, each in one transaction that is short and waits for no network."""

    def __init__(self, url: str, *, name: str, pool_size: int = 5) -> None:
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
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


async def _select_one(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT 1"))
