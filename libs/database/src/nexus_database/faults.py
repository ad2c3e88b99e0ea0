"""What a database error means for the work at hand: this row, or everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

ROW_CLASSES: Final = ("22", "23")
"""SQLSTATE classes of data exceptions and integrity violations."""

PROGRAM_LIMIT_EXCEEDED: Final = "54000"
TRY_AGAIN: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same transaction may succeed at once."""


TOLD: Final = {
    "28P01": "the role's password is refused",
    "28000": "the role may not log in",
    "3D000": "there is no such database",
    "42501": "the role lacks a permission: run the migrate command as the owner",
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


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE behind an error of SQLAlchemy's or the driver's."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    state = state or getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of SQLAlchemy, the driver and the network into this module's two.

    Neither repeats the statement's parameters, which are personal data.

    Raises:
        RowRefusedError: SQLSTATE classes 22 and 23, and 54000.
        DatabaseUnavailableError: everything else.
    """
    try:
        yield
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        state = sqlstate(error)
        if state is not None and (state[:2] in ROW_CLASSES or state == PROGRAM_LIMIT_EXCEEDED):
            raise RowRefusedError(f"SQLSTATE {state}") from None
        raise DatabaseUnavailableError(_told(state, error)) from None
    except (OSError, TimeoutError) as error:
        cause = type(error).__name__
        raise DatabaseUnavailableError(f"the database is not reachable: {cause}") from None


def _told(state: str | None, error: Exception) -> str:
    if state is None:
        return f"the database can't be used: {type(error).__name__}"
    told = f", {TOLD[state]}" if state in TOLD else ""
    return f"the database can't be used: SQLSTATE {state}{told}"
