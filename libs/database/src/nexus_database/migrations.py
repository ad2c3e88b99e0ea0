"""Bringing a database to the revision that the code expects, and refusing one that won't serve it.

A service's migrations are a package beside its code, ``<service>.migrations``, whose ``env.py``
only calls ``run_environment``.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database.compatibility import (
    is_ahead_but_serves,
    known_revisions,
    record_served,
    revision_of,
)
from nexus_database.database import WAIT_FOR_LOCKS, Database, require_writable
from nexus_database.faults import (
    DatabaseUnavailableError,
    RowRefusedError,
    RowsBusyError,
    translated,
)

ADVISORY_LOCK: Final = 7_203_511
"""Any fixed number: two migrations of one database wait for each other under it."""

LOCK_TIMEOUT: Final = "5s"
"""A migration that waits longer for a table would itself block every service behind it."""

ENCODING: Final = "UTF8"
"""The one encoding of PostgreSQL's that holds every text that an event may carry."""


class MigrationError(Exception):
    """The database could not be brought to the wanted revision; it is as it was."""


class UnfitDatabaseError(Exception):
    """This code can't work on the database; the text says why and what to do."""


class RevisionMismatchError(UnfitDatabaseError):
    """The database is at a revision that this code can't work on."""


async def migrate(url: str, package: str, revision: str = "head") -> str:
    """Upgrade the database of ``package`` (such as ``usage_ingest``); return its revision.

    A database of a newer release that serves this one is left as it is.

    Raises:
        MigrationError: unreachable, locked, or a migration failed; it was rolled back.
    """

    def up(config: Config, connection: Connection) -> None:
        if not is_ahead_but_serves(connection, ScriptDirectory.from_config(config)):
            command.upgrade(config, revision)

    return await _moved(url, package, up)


async def downgrade(url: str, package: str, revision: str) -> str:
    """Downgrade the database of ``package``; return its revision.

    Raises:
        MigrationError: unreachable, locked, or a migration failed; it was rolled back.
    """
    return await _moved(url, package, lambda config, _: command.downgrade(config, revision))


async def require_current(database: Database, package: str) -> None:
    """Return if the database can be written to and has the schema that the code works on.

    That is the newest revision that the code knows, or one that serves it.

    Raises:
        RevisionMismatchError: it is behind or too far ahead; the text says which and what to do.
        UnfitDatabaseError: it is another service's, or its encoding can't hold every text.
        DatabaseUnavailableError: it can't be asked, or only reads.
    """
    script = ScriptDirectory.from_config(_config(package))
    expected = script.get_current_head()

    def standing(connection: Connection) -> tuple[str | None, bool]:
        _require_fit(connection, package)
        return revision_of(connection), is_ahead_but_serves(connection, script)

    async def writable_standing(connection: AsyncConnection) -> tuple[str | None, bool]:
        await require_writable(connection)
        return await connection.run_sync(standing)

    found, serves = await database.run(writable_standing)
    if found == expected or serves:
        return
    if found is None or found in known_revisions(script):
        raise RevisionMismatchError(
            f"the database is at revision {found or 'none'}, this release needs {expected}: "
            "run the migrate command first"
        )
    raise RevisionMismatchError(
        f"the database is at revision {found}, which does not serve this release: "
        "it belongs to a newer release, so start that one"
    )


async def revision_fault(database: Database, package: str) -> str | None:
    """Say what keeps this release from writing to the database, for a readiness check."""
    try:
        await require_current(database, package)
    except (DatabaseUnavailableError, UnfitDatabaseError) as error:
        return str(error)
    return None


def _require_fit(connection: Connection, package: str) -> None:
    """Return if the database of ``connection`` can be the one of ``package``.

    Raises:
        UnfitDatabaseError: the text says why not.
    """
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != ENCODING:
        raise UnfitDatabaseError(
            f"the database is encoded in {encoding} and can't hold every name: create it anew with"
            f" ENCODING '{ENCODING}' (TEMPLATE template0)"
        )
    table = import_module(f"{package}.migrations").OWN_TABLE
    if revision_of(connection) is not None and not connection.scalar(
        text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table}
    ):
        raise UnfitDatabaseError(
            f"the database is another service's, it has no table {table}: is DATABASE_URL right?"
        )


def run_environment() -> None:
    """Run migrations on the connection that ``migrate`` opened: the body of every ``env.py``."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


async def _moved(url: str, package: str, move: Callable[[Config, Connection], None]) -> str:
    database = Database(url, name=f"{package} migrate", pool_size=1)
    config = _config(package)

    def under_lock(connection: Connection) -> str:
        connection.execute(WAIT_FOR_LOCKS)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        _require_fit(connection, package)
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        config.attributes["connection"] = connection
        move(config, connection)
        script = ScriptDirectory.from_config(config)
        if not is_ahead_but_serves(connection, script):
            record_served(connection, script)
        return revision_of(connection) or "base"

    try:
        with translated():
            async with database.engine.begin() as connection:
                return await connection.run_sync(under_lock)
    except RowsBusyError:
        raise MigrationError(
            f"migration of {package} failed: a table is in use; repeat it"
        ) from None
    except (DatabaseUnavailableError, RowRefusedError, UnfitDatabaseError, CommandError) as error:
        raise MigrationError(f"migration of {package} failed: {error}") from None
    finally:
        await database.close()


def _config(package: str) -> Config:
    config = Config()
    config.set_main_option("script_location", f"{package}:migrations")
    config.set_main_option("path_separator", "os")
    return config
