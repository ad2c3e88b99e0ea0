"""Access to a service's PostgreSQL database: transactions, fault classes, migrations.

Each name is imported from its module when it is first used: most processes never migrate, and the
import of Alembic takes a tenth of a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus_database.database import WAIT_FOR_LOCKS, Database
    from nexus_database.faults import (
        DatabaseUnavailableError,
        MigrationError,
        RevisionMismatchError,
        RowRefusedError,
        RowsBusyError,
        UnfitDatabaseError,
    )
    from nexus_database.migrations import downgrade, migrate, require_current, revision_fault
    from nexus_database.replication import commit_replicated

__all__ = [
    "WAIT_FOR_LOCKS",
    "Database",
    "DatabaseUnavailableError",
    "MigrationError",
    "RevisionMismatchError",
    "RowRefusedError",
    "RowsBusyError",
    "UnfitDatabaseError",
    "commit_replicated",
    "downgrade",
    "migrate",
    "require_current",
    "revision_fault",
]

_MODULES = {
    "WAIT_FOR_LOCKS": "database",
    "Database": "database",
    "commit_replicated": "replication",
    "downgrade": "migrations",
    "migrate": "migrations",
    "require_current": "migrations",
    "revision_fault": "migrations",
}
"""Where each name is, unless it is an error: those are in ``faults``."""

if not TYPE_CHECKING:  # or mypy would accept any name

    def __getattr__(name: str) -> object:
        """Import a name of ``__all__`` (https://peps.python.org/pep-0562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_MODULES.get(name, 'faults')}")
        return getattr(module, name)
