"""Access to a service's PostgreSQL database: transactions, fault classes, migrations."""

from nexus_database.database import WAIT_FOR_LOCKS, Database
from nexus_database.faults import DatabaseUnavailableError, RowRefusedError, RowsBusyError
from nexus_database.migrations import (
    MigrationError,
    RevisionMismatchError,
    UnfitDatabaseError,
    downgrade,
    migrate,
    require_current,
    revision_fault,
)
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
