"""Which faults of a database are about one row, and which about everything."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nexus_database.faults import DatabaseUnavailableError, RowRefusedError, translated


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
        asyncpg.exceptions.InterfaceError("ada@example.com"),
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
