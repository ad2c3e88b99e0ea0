"""Classes of database faults: one row, or the whole database."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nexus_database.faults import (
    DatabaseUnavailableError,
    ReadOnlyError,
    RowRefusedError,
    RowsBusyError,
    leaves_sessions_usable,
    translate_errors,
)


def dbapi_error(error: type[asyncpg.PostgresError]) -> DBAPIError:
    """Return an error as SQLAlchemy raises it, with parameters that are personal data."""
    return DBAPIError("INSERT …", {"email": "ada@example.com"}, error("ada@example.com"))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.exceptions.UntranslatableCharacterError,
        asyncpg.exceptions.NumericValueOutOfRangeError,
        asyncpg.exceptions.CheckViolationError,
        asyncpg.exceptions.NotNullViolationError,
        asyncpg.exceptions.ProgramLimitExceededError,
    ],
)
def test_invalid_data_raises_row_refused(error: type[asyncpg.PostgresError]) -> None:
    """SQLSTATE 22, 23 and 54000; the text quotes nothing."""
    with pytest.raises(RowRefusedError) as refusal, translate_errors():
        raise dbapi_error(error)

    assert "ada" not in str(refusal.value)


@pytest.mark.parametrize(
    "error",
    [
        dbapi_error(asyncpg.exceptions.InsufficientPrivilegeError),
        dbapi_error(asyncpg.exceptions.UndefinedTableError),
        dbapi_error(asyncpg.exceptions.AdminShutdownError),
        dbapi_error(asyncpg.exceptions.TooManyConnectionsError),
        dbapi_error(asyncpg.exceptions.ReadOnlySQLTransactionError),
        ReadOnlyError("ada@example.com"),
        asyncpg.exceptions.InterfaceError("ada@example.com"),
        asyncpg.exceptions.InternalClientError("ada@example.com"),
        PoolTimeoutError("ada@example.com"),
        ConnectionRefusedError("ada@example.com"),
        TimeoutError("ada@example.com"),
    ],
    ids=lambda error: type(getattr(error, "orig", None) or error).__name__,
)
def test_other_errors_raise_database_unavailable(error: Exception) -> None:
    """The work pauses; no message is dead-lettered for it."""
    with pytest.raises(DatabaseUnavailableError) as fault, translate_errors():
        raise error

    assert "ada" not in str(fault.value)


def test_lock_timeout_raises_rows_busy() -> None:
    """Messages about other rows continue; this one is retried without an attempt."""
    with pytest.raises(RowsBusyError) as fault, translate_errors():
        raise dbapi_error(asyncpg.exceptions.LockNotAvailableError)

    assert "ada" not in str(fault.value)


@pytest.mark.parametrize(
    ("error", "usable"),
    [
        (asyncpg.exceptions.CheckViolationError, True),
        (asyncpg.exceptions.LockNotAvailableError, True),
        (asyncpg.exceptions.DeadlockDetectedError, True),
        (asyncpg.exceptions.DiskFullError, True),
        (asyncpg.exceptions.ReadOnlySQLTransactionError, False),
        (asyncpg.exceptions.InvalidSQLStatementNameError, False),
        (asyncpg.exceptions.DuplicatePreparedStatementError, False),
        (asyncpg.exceptions.QueryCanceledError, True),
        (asyncpg.exceptions.InternalServerError, False),
    ],
)
def test_only_known_faults_leave_sessions_usable(
    error: type[asyncpg.PostgresError], *, usable: bool
) -> None:
    """A read-only session, or one without its statements, must not stay in the pool."""
    assert leaves_sessions_usable(dbapi_error(error)) is usable


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), ReadOnlyError()])
def test_unknown_faults_discard_sessions(error: Exception) -> None:
    """A new session is cheap."""
    assert not leaves_sessions_usable(error)
