"""Migrates a database to the revision of the code, and refuses one that the code can't work on.

The migrations of a service are its package ``<service>.migrations``, whose ``env.py`` only calls
``run_environment``.
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
    MigrationError,
    RevisionMismatchError,
    RowRefusedError,
    RowsBusyError,
    UnfitDatabaseError,
    translate_errors,
)

ADVISORY_LOCK: Final = 7_203_511
"""Any fixed number; it makes concurrent migrations of a database run one after the other."""

LOCK_TIMEOUT: Final = "5s"
"""The limit on waiting for a table: a waiting migration blocks all services queued behind it."""

ENCODING: Final = "UTF8"
"""PostgreSQL's only encoding that can store every text of an event."""


async def migrate(url: str, package: str, revision: str = "head") -> str:
    """Upgrade the database of ``package`` (such as ``usage_ingest``); return its revision.

    A newer database that serves this release is left unchanged.

    Raises:
        MigrationError: unreachable, locked, or a migration failed; it was rolled back.
    """

    def upgrade(config: Config, connection: Connection) -> None:
        if not is_ahead_but_serves(connection, ScriptDirectory.from_config(config)):
            command.upgrade(config, revision)

    return await _run_under_lock(url, package, upgrade)


async def downgrade(url: str, package: str, revision: str) -> str:
    """Downgrade the database of ``package``; return its revision.

    Raises:
        MigrationError: unreachable, locked, or a migration failed; it was rolled back.
    """
    return await _run_under_lock(
        url, package, lambda config, _: command.downgrade(config, revision)
    )


async def require_current(database: Database, package: str) -> None:
    """Return if the database accepts writes and has a schema that this release works on.

    That is the newest revision that the release knows, or a newer one that serves it.

    Raises:
        RevisionMismatchError: the revision is too old or too new; the text says what to do.
        UnfitDatabaseError: it belongs to another service, or its encoding is not UTF-8.
        DatabaseUnavailableError: it can't be reached or is read-only.
    """
    script = ScriptDirectory.from_config(_config(package))
    expected = script.get_current_head()

    def schema_state(connection: Connection) -> tuple[str | None, bool]:
        _require_suitable(connection, package)
        return revision_of(connection), is_ahead_but_serves(connection, script)

    async def writable_schema_state(connection: AsyncConnection) -> tuple[str | None, bool]:
        await require_writable(connection)
        return await connection.run_sync(schema_state)

    found, serves = await database.run(writable_schema_state)
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
    """Return why this release can't write to the database, or ``None``; for readiness."""
    try:
        await require_current(database, package)
    except (DatabaseUnavailableError, UnfitDatabaseError) as error:
        return str(error)
    return None


def _require_suitable(connection: Connection, package: str) -> None:
    """Return if the database of ``connection`` suits ``package``.

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


async def _run_under_lock(
    url: str, package: str, change: Callable[[Config, Connection], None]
) -> str:
    database = Database(url, name=f"{package} migrate", pool_size=1)
    config = _config(package)

    def under_lock(connection: Connection) -> str:
        connection.execute(WAIT_FOR_LOCKS)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        _require_suitable(connection, package)
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        config.attributes["connection"] = connection
        change(config, connection)
        script = ScriptDirectory.from_config(config)
        if not is_ahead_but_serves(connection, script):
            record_served(connection, script)
        return revision_of(connection) or "base"

    try:
        with translate_errors():
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
