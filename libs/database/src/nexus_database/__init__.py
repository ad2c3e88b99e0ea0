"""What every service does with its PostgreSQL database: transactions, fault classes, migrations."""

from nexus_database.database import Database
from nexus_database.faults import DatabaseUnavailableError, RowRefusedError
from nexus_database.migrations import (
    MigrationError,
    RevisionMismatchError,
    downgrade,
    migrate,
    require_current,
    revision_fault,
)
from nexus_database.replication import commit_replicated

__all__ = [
    "Database",
    "DatabaseUnavailableError",
    "MigrationError",
    "RevisionMismatchError",
    "RowRefusedError",
    "commit_replicated",
    "downgrade",
    "migrate",
    "require_current",
    "revision_fault",
]
