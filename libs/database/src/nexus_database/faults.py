"""Classes of database errors: a fault of one row, of the whole database, or of its revision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from nexus_messaging.errors import TransientError

ROW_CLASSES: Final = ("22", "23")
"""SQLSTATE classes of data exceptions and integrity violations."""

PROGRAM_LIMIT_EXCEEDED: Final = "54000"
RETRYABLE: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: an immediate retry may succeed."""

LOCK_NOT_AVAILABLE: Final = "55P03"
"""The SQLSTATE that ``lock_timeout`` and ``NOWAIT`` cause."""

QUERY_CANCELED: Final = "57014"
"""The SQLSTATE that ``statement_timeout`` causes."""

HARMLESS_CLASSES: Final = (*ROW_CLASSES, "40", "53", "54")
"""SQLSTATE classes of invalid rows, conflicting transactions and lack of resources: the session
remains usable."""

EXPLANATIONS: Final = {
    "25006": "it only reads: it is a standby, or default_transaction_read_only is set",
    "28P01": "the role's password is refused",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "42501": "the role lacks a permission: run the migrate command as the owner",
    "42P01": "a table is missing: is this another service's database?",
    "53100": "its disk is full",
    "53300": "all its connections are taken",
    "57014": "a statement took too long",
    "57P01": "it is being shut down",
    "57P03": "it is starting up or shutting down",
}
"""Explanations of SQLSTATEs that an operator can act on
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


class DatabaseUnavailableError(Exception):
    """The database can't be used now; the work itself is not the cause."""


class RowRefusedError(Exception):
    """The database refuses a row permanently."""


class RowsBusyError(TransientError):
    """Another transaction locks a row for longer than ``lock_timeout``.

    Other rows are not affected.
    """

    def __init__(self) -> None:
        super().__init__("another transaction holds the row: it can be changed later")


class MigrationError(Exception):
    """The migration failed; the database is unchanged."""


class UnfitDatabaseError(Exception):
    """This release can't work on the database; the text says why and what to do."""


class RevisionMismatchError(UnfitDatabaseError):
    """The revision of the database does not serve this release."""


class ReadOnlyError(Exception):
    """The server answers but accepts no writes."""

    sqlstate = "25006"


FAULTS: Final = (
    ReadOnlyError,
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All errors of SQLAlchemy, the driver, the network and the check for a read-only session."""


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE of an error of SQLAlchemy or the driver."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    state = state or getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def leaves_sessions_usable(error: BaseException) -> bool:
    """Return whether ``error`` is known to leave open sessions usable.

    After any other error the sessions are discarded. Otherwise a session with a read-only server,
    or one that lost its prepared statements, would stay in the pool.
    """
    state = sqlstate(error)
    return state is not None and (
        state[:2] in HARMLESS_CLASSES or state in (LOCK_NOT_AVAILABLE, QUERY_CANCELED)
    )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of SQLAlchemy, the driver and the network into this module's three classes.

    Their texts quote no parameters of statements, which are personal data.

    Raises:
        RowRefusedError: SQLSTATE classes 22 and 23, and 54000.
        RowsBusyError: SQLSTATE 55P03.
        DatabaseUnavailableError: everything else.
    """
    try:
        yield
    except FAULTS as error:
        state = sqlstate(error)
        if state == LOCK_NOT_AVAILABLE:
            raise RowsBusyError from None
        if state is not None and (state[:2] in ROW_CLASSES or state == PROGRAM_LIMIT_EXCEEDED):
            raise RowRefusedError(f"SQLSTATE {state}") from None
        raise unavailable(error) from None


def unavailable(error: Exception) -> DatabaseUnavailableError:
    """Return the general translation of one of ``FAULTS``."""
    lost = isinstance(error, OSError | TimeoutError)
    what = "is not reachable" if lost else "can't be used"
    return DatabaseUnavailableError(f"the database {what}: {cause_of(error)}")


def cause_of(error: Exception) -> str:
    """Return the cause of one of ``FAULTS`` as text, without values."""
    state = sqlstate(error)
    if state is None:
        return type(error).__name__
    return (
        f"SQLSTATE {state}, {EXPLANATIONS[state]}" if state in EXPLANATIONS else f"SQLSTATE {state}"
    )
