"""Whether a release may work on a database that a newer release has already migrated.

A release knows no revision beyond its own, so the newer revision must say which releases it serves.
``OLDEST_SERVED`` in a migration's module is the oldest revision whose release still works on the
new schema. Without it, the revision serves its own release only. The runner writes this into the
database, as the comment of Alembic's table: reading a comment needs no grant, and the comment is
written in the transaction of the migration.
"""

import re
from typing import Final

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

ATTRIBUTE: Final = "OLDEST_SERVED"

_COMMENT: Final = re.compile(r"revision (\w+) serves releases from revision (\w+) on")

_READ: Final = text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the database."""
    return MigrationContext.configure(connection).get_current_revision()


def known_revisions(script: ScriptDirectory) -> frozenset[str]:
    """Return the revisions that this release knows: its own and all earlier ones."""
    return frozenset(revision.revision for revision in script.walk_revisions())


def record_served(connection: Connection, script: ScriptDirectory) -> None:
    """Write into the database which releases its revision serves; ``script`` has that revision."""
    revision = revision_of(connection)
    comment = "NULL"
    if revision is not None:
        oldest = getattr(script.get_revision(revision).module, ATTRIBUTE, revision)
        comment = f"'revision {revision} serves releases from revision {oldest} on'"
    connection.execute(text(f"COMMENT ON TABLE alembic_version IS {comment}"))


def is_ahead_but_serves(connection: Connection, script: ScriptDirectory) -> bool:
    """Return whether the database is newer than ``script`` and its comment says that it serves it.

    A comment that names another revision is ignored: it remains from before a migration without
    the runner.
    """
    revision, known = revision_of(connection), known_revisions(script)
    comment = _COMMENT.fullmatch(connection.execute(_READ).scalar() or "")
    return (
        revision not in known
        and comment is not None
        and comment[1] == revision
        and comment[2] in known
    )
