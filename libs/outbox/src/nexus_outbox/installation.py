"""The outbox's SQL: installed by its owner, and checked by the loop."""

from importlib.resources import files
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database, DatabaseUnavailableError, MigrationError
from nexus_database.connecting import Connector
from nexus_database.database import require_writable
from nexus_database.faults import FAULTS, cause_of
from nexus_database.url import DatabaseUrl

VERSION: Final = "nexus-outbox 1"
"""The comment of the schema, as ``install.sql`` writes it."""

_INSTALLED: Final = text("""
SELECT obj_description(to_regnamespace('metering'), 'pg_namespace') AS version,
       coalesce(has_schema_privilege(to_regnamespace('metering'), 'USAGE'), false) AS admitted
""")


class NotInstalledError(Exception):
    """The database has no outbox that this release can use; the text says what to do."""


def sql_file(name: str) -> str:
    """Return the SQL of the file ``name``, one of ``command_line.FILES``."""
    return files("nexus_outbox").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


async def install(url: str) -> str:
    """Install or update the outbox as its owner; return its version.

    Raises:
        MigrationError: PostgreSQL refuses it; nothing was changed.
        DatabaseUnavailableError: the database can't be used.
    """
    session = await Connector(DatabaseUrl.of(url), "nexus-outbox migrate").connect()
    try:
        await session.execute(sql_file("install"))
    except asyncpg.PostgresError as error:
        raise MigrationError(f"nothing was changed: {error}") from None
    except FAULTS as error:
        raise MigrationError(f"nothing was changed: {cause_of(error)}") from None
    finally:
        session.terminate()
    return VERSION


async def require_installed(database: Database) -> None:
    """Return if the outbox is installed in this release's version, and this role may write to it.

    Raises:
        NotInstalledError: it is not, or may not.
        DatabaseUnavailableError: the database can't be used.
    """

    async def work(connection: AsyncConnection) -> tuple[str | None, bool]:
        await require_writable(connection)
        row = (await connection.execute(_INSTALLED)).one()
        return row.version, row.admitted

    version, admitted = await database.run(work)
    if version is None:
        raise NotInstalledError(
            "the outbox is not installed: run install.sql as the role that shall own it"
        )
    if version != VERSION:
        raise NotInstalledError(f"this release needs the outbox {VERSION!r}: run its install.sql")
    if not admitted:
        raise NotInstalledError(
            "this role may not use the outbox: as its owner, SELECT metering.admit_loop('ROLE')"
        )


async def installation_fault(database: Database) -> str | None:
    """Return why the outbox can't be used, or ``None``."""
    try:
        await require_installed(database)
    except (NotInstalledError, DatabaseUnavailableError) as error:
        return str(error)
    return None
