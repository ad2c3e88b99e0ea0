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

__all__ = [
    "Database",
    "DatabaseUnavailableError",
    "MigrationError",
    "RevisionMismatchError",
    "RowRefusedError",
    "downgrade",
    "migrate",
    "require_current",
    "revision_fault",
]
