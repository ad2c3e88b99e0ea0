"""What a database error means for the work at hand: this row, or everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from nexus_messaging.errors import TransientError

ROW_CLASSES: Final = ("22", "23")
"""SQLSTATE classes of data exceptions and integrity violations."""

PROGRAM_LIMIT_EXCEEDED: Final = "54000"
TRY_AGAIN: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same transaction may succeed at once."""


LOCK_NOT_AVAILABLE: Final = "55P03"
"""Of ``lock_timeout`` and ``NOWAIT``."""

HARMLESS_CLASSES: Final = (*ROW_CLASSES, "40", "53", "54")
"""SQLSTATE classes of rows, rival transactions and a lack of room: the session is in order."""

TOLD: Final = {
    "25006": "it only reads: it is a standby, or default_transaction_read_only is set",
    "28P01": "the role's password is refused",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "42501": "the role lacks a permission: run the migrate command as the owner",
    "42P01": "a table is missing: is this another service's database?",
    "53100": "its disk is full",
    "53300": "all its connections are taken",
    "57P01": "it is being shut down",
    "57P03": "it is starting up or shutting down",
}
"""SQLSTATEs that a person can do something about
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


class DatabaseUnavailableError(Exception):
    """No work can be done with the database now; none of it is at fault."""


class RowRefusedError(Exception):
    """The database will never take one of the rows it was given."""


class RowsBusyError(TransientError):
    """Another transaction holds some of the rows for longer than anybody should wait for it.

    It says nothing of any other row.
    """

    def __init__(self) -> None:
        super().__init__("another transaction holds the row: it can be changed later")


class ReadsOnlyError(Exception):
    """A server takes no writes, though it answers."""

    sqlstate = "25006"


FAULTS: Final = (
    ReadsOnlyError,
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What comes out of SQLAlchemy, the driver and the network, and of our own look at a session."""


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE behind an error of SQLAlchemy's or the driver's."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    state = state or getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def spares_sessions(error: BaseException) -> bool:
    """Whether open sessions may be used after ``error``: only if it is known not to be theirs.

    Otherwise a session whose server only reads, or that lost its statements, would never be closed.
    """
    state = sqlstate(error)
    return state is not None and (state[:2] in HARMLESS_CLASSES or state == LOCK_NOT_AVAILABLE)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of SQLAlchemy, the driver and the network into this module's three.

    None repeats the statement's parameters, which are personal data.

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
    """Return what one of ``FAULTS`` means where nothing else is known of it."""
    lost = isinstance(error, OSError | TimeoutError)
    what = "is not reachable" if lost else "can't be used"
    return DatabaseUnavailableError(f"the database {what}: {cause_of(error)}")


def cause_of(error: Exception) -> str:
    """Name the cause of one of ``FAULTS`` for a person, without a value."""
    state = sqlstate(error)
    if state is None:
        return type(error).__name__
    return f"SQLSTATE {state}, {TOLD[state]}" if state in TOLD else f"SQLSTATE {state}"
