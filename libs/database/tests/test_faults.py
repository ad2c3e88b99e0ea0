"""Which faults of a database are about one row, and which about everything."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nexus_database.faults import (
    DatabaseUnavailableError,
    ReadsOnlyError,
    RowRefusedError,
    RowsBusyError,
    spares_sessions,
    translated,
)


def failed(error: type[asyncpg.PostgresError]) -> DBAPIError:
    """Return an error as SQLAlchemy raises it, with parameters that nobody may see."""
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
def test_data_that_can_never_be_stored_refuses_its_row(error: type[asyncpg.PostgresError]) -> None:
    """SQLSTATE 22, 23 and 54000; the text quotes nothing."""
    with pytest.raises(RowRefusedError) as refusal, translated():
        raise failed(error)

    assert "ada" not in str(refusal.value)


@pytest.mark.parametrize(
    "error",
    [
        failed(asyncpg.exceptions.InsufficientPrivilegeError),
        failed(asyncpg.exceptions.UndefinedTableError),
        failed(asyncpg.exceptions.AdminShutdownError),
        failed(asyncpg.exceptions.TooManyConnectionsError),
        failed(asyncpg.exceptions.ReadOnlySQLTransactionError),
        ReadsOnlyError("ada@example.com"),
        asyncpg.exceptions.InterfaceError("ada@example.com"),
        asyncpg.exceptions.InternalClientError("ada@example.com"),
        PoolTimeoutError("ada@example.com"),
        ConnectionRefusedError("ada@example.com"),
        TimeoutError("ada@example.com"),
    ],
    ids=lambda error: type(getattr(error, "orig", None) or error).__name__,
)
def test_everything_else_is_nobodys_fault(error: Exception) -> None:
    """Such work pauses; blaming a message for it would dead-letter the innocent."""
    with pytest.raises(DatabaseUnavailableError) as fault, translated():
        raise error

    assert "ada" not in str(fault.value)


def test_lock_that_was_not_given_in_time_is_of_its_rows_alone() -> None:
    """Messages about other rows go on; this one waits, and spends nothing."""
    with pytest.raises(RowsBusyError) as fault, translated():
        raise failed(asyncpg.exceptions.LockNotAvailableError)

    assert "ada" not in str(fault.value)


@pytest.mark.parametrize(
    ("error", "spared"),
    [
        (asyncpg.exceptions.CheckViolationError, True),
        (asyncpg.exceptions.LockNotAvailableError, True),
        (asyncpg.exceptions.DeadlockDetectedError, True),
        (asyncpg.exceptions.DiskFullError, True),
        (asyncpg.exceptions.ReadOnlySQLTransactionError, False),
        (asyncpg.exceptions.InvalidSQLStatementNameError, False),
        (asyncpg.exceptions.DuplicatePreparedStatementError, False),
        (asyncpg.exceptions.QueryCanceledError, False),
        (asyncpg.exceptions.InternalServerError, False),
    ],
)
def test_sessions_are_spared_by_faults_that_are_known_to_be_of_other_things(
    error: type[asyncpg.PostgresError], *, spared: bool
) -> None:
    """A session that only reads, or lost its statements, would be used on for ever."""
    assert spares_sessions(failed(error)) is spared


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), ReadsOnlyError()])
def test_sessions_are_not_spared_by_what_nobody_understands(error: Exception) -> None:
    """A new one costs little."""
    assert not spares_sessions(error)
