"""Backups of one database, as an operator takes and restores them: pg_dump and pg_restore."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from local_stack.programs import run_program
from local_stack.servers import Database as PostgresServer
from local_stack.sql import postgres_programs, run_sql
from local_stack.urls import Address, login_of


def back_up(postgres: PostgresServer, url: str, file: Path) -> None:
    """Write a backup of the database at ``url`` into ``file``, while it is in use."""
    _run(postgres, "pg_dump", "--format=custom", f"--file={file}", _name(url))


def restore(postgres: PostgresServer, url: str, file: Path) -> None:
    """Drop the database at ``url`` and make it again from a backup."""
    name, owner = _name(url), f"{login_of(url).user}_owner"
    run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")
    run_sql(postgres.superuser_url, f"CREATE DATABASE {name} OWNER {owner}")
    _run(postgres, "pg_restore", "--exit-on-error", f"--dbname={name}", str(file))


def _name(url: str) -> str:
    return unquote(urlsplit(url).path.lstrip("/"))


def _run(postgres: PostgresServer, program: str, *arguments: str) -> None:
    address, login = Address.of(postgres.superuser_url), login_of(postgres.superuser_url)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": login.user,
        "PGPASSWORD": login.password,
    }
    run_program((postgres_programs() / program, *arguments), env=environment, seconds=60)
