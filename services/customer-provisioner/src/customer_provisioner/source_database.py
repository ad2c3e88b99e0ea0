"""Reads users from another service's database: read-only, page by page, each page a transaction."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from customer_provisioner.user_list import COLUMNS, UnreadableListError, UnusableEntry, read_user
from nexus_contracts import UserCreatedV2

PAGE_SIZE: Final = 500
"""Users that one transaction reads. None is open while they are published, which may take hours."""

CONNECT_SECONDS: Final = 15.0
STATEMENT_SECONDS: Final = 120.0
"""Limits of opening the session and of one page."""

BEFORE_FIRST_USER: Final = UUID(int=0)


class SourceDatabase:
    """A query whose rows are users, with the columns that a list of users has.

    Every method raises UnreadableListError if the database can't be read or the query is none.
    """

    def __init__(self, connection: asyncpg.Connection, query: str) -> None:
        self._connection = connection
        # A query of this command's operator, in a read-only transaction.
        self._rows = f"({query.strip().rstrip(';')}\n) AS listed"

    async def count(self) -> int:
        """Return the number of rows.

        Raises:
            UnreadableListError: also if there are none, or some have no user.
        """
        counts = "count(*) AS number, count(*) - count(listed.user_id) AS unnamed"
        [first] = await self._fetch(f"SELECT {counts} FROM {self._rows}")  # noqa: S608 - see above
        if first["unnamed"]:
            raise UnreadableListError(f"{first['unnamed']} of the query's rows have no user_id")
        if not first["number"]:
            raise UnreadableListError("the query has no rows: it lists no user")
        return int(first["number"])

    async def users(self) -> AsyncIterator[UserCreatedV2 | UnusableEntry]:
        """Yield a user for each row, in the order of the ids."""
        page = (
            f"SELECT * FROM {self._rows} WHERE listed.user_id > $1::uuid"  # noqa: S608 - see above
            f" ORDER BY listed.user_id LIMIT {PAGE_SIZE}"
        )
        after, number = BEFORE_FIRST_USER, 0
        while rows := await self._fetch(page, after):
            if missing := [name for name in COLUMNS if name not in rows[0]]:
                raise UnreadableListError(
                    f"the query has no column {' and no column '.join(missing)}"
                )
            for row in rows:
                number += 1
                yield _read(row, number)
            after = rows[-1]["user_id"]

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        try:
            async with self._connection.transaction(readonly=True):
                return list(await self._connection.fetch(statement, *values))
        except _FAULTS as error:
            raise UnreadableListError(_in_words(error)) from None


@asynccontextmanager
async def source_database(url: str, query: str) -> AsyncIterator[SourceDatabase]:
    """Connect to the database at ``url`` and read ``query``.

    Raises:
        UnreadableListError: no connection is possible.
    """
    try:
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            statement_cache_size=0,  # a pooler in transaction mode keeps no prepared statements
        )
    except _FAULTS as error:
        raise UnreadableListError(_in_words(error)) from None
    try:
        yield SourceDatabase(connection, query)
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


_FAULTS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
)


def _read(row: Any, number: int) -> UserCreatedV2 | UnusableEntry:
    given = {name: str(value) for name, value in row.items() if value not in (None, "")}
    entry = read_user(json.dumps(given), number)
    if isinstance(entry, UnusableEntry):
        return UnusableEntry(number, f"user {row['user_id']}: {entry.fault}")
    return entry


def _in_words(error: Exception) -> str:
    """Describe an error. Only texts about the query itself are quoted: others may quote rows."""
    state = getattr(error, "sqlstate", None) or type(error).__name__
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        return (
            f"the source database refuses the query ({state}: {error.args[0]}): it must have the"
            " columns user_id, of type uuid, and email, and may have name and stripe_customer_id"
        )
    return f"the source database can't be read ({state})"
