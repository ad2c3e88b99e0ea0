"""Whether a release may work on a database that a newer release has migrated already.

A release knows no revision beyond its own, so the revision itself says who may stay: a module's
``OLDEST_SERVED`` names the oldest revision whose release still works on the schema that it makes;
without one it serves its own release only. The runner writes that into the database, as the comment
of Alembic's table: reading a comment needs no grant, and it is written in the migration's own
transaction.
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
    """Return the revision that the database is at."""
    return MigrationContext.configure(connection).get_current_revision()


def known_revisions(script: ScriptDirectory) -> frozenset[str]:
    """Return the revisions that this release has been through, its own included."""
    return frozenset(revision.revision for revision in script.walk_revisions())


def record_served(connection: Connection, script: ScriptDirectory) -> None:
    """Write into the database which releases its revision, one of ``script``'s, serves."""
    found = revision_of(connection)
    comment = "NULL"
    if found is not None:
        oldest = getattr(script.get_revision(found).module, ATTRIBUTE, found)
        comment = f"'revision {found} serves releases from revision {oldest} on'"
    connection.execute(text(f"COMMENT ON TABLE alembic_version IS {comment}"))


def is_ahead_but_serves(connection: Connection, script: ScriptDirectory) -> bool:
    """Whether the database is beyond the revisions of ``script`` and says that it serves them.

    What is said of another revision than the one found counts for nothing: somebody migrated
    without the runner.
    """
    found, known = revision_of(connection), known_revisions(script)
    said = _COMMENT.fullmatch(connection.execute(_READ).scalar() or "")
    return found not in known and said is not None and said[1] == found and said[2] in known
