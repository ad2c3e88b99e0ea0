"""What each database role is refused, in databases made and migrated as for production."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from local_stack.databases import ServiceDatabase, create_databases
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from local_stack.urls import Login
from nexus_database import Database, DatabaseUnavailableError, migrate

REFUSED = "SQLSTATE 42501"
CHANGE = "UPDATE {} SET {} = DEFAULT"

CHANGEABLE = {
    "customer_provisioner": {
        "user_profiles": "announced_generation attempts call_started_at claimed_until"
        " create_request due_at email generation key_n key_spent last_fault name provisioned_at"
        " refused_as state stripe_customer_id updated_at",
    },
    "usage_ingest": {
        "billing_accounts": "generation stripe_customer_id updated_at user_id",
        "usage_events": "billing_state claim_id",
        "usage_reports": "answered_at ever_unknown forwarded_at leased_until reason state",
    },
    "stripe_reporter": {
        "meter_calls": "answer answered_at attempts first_unknown_at key_n reason request_digest"
        " started_at state",
    },
}
"""Of each service's tables, the columns its role may change: every other column is a fact."""

SERVICES = tuple(CHANGEABLE)


@dataclass(frozen=True)
class Estate:
    """Every service's database on one server, its logins as they are in production."""

    server: PostgresServer
    databases: dict[str, ServiceDatabase]

    def columns(self, service: str) -> list[tuple[str, str]]:
        """Return every table and column of a service."""
        rows = run_sql(
            self._url(service, self.databases[service].owner),
            "SELECT table_name || ' ' || column_name FROM information_schema.columns"
            " JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
        )
        return [(table, column) for table, column in map(str.split, rows.splitlines())]

    async def run(self, database: str, statement: str, login: Login | None = None) -> None:
        """Run a statement in a database, as its service unless another ``login`` is given."""
        login = login or self.databases[database].service
        connection = Database(self._url(database, login), name="test", pool_size=1)
        try:
            await connection.run(lambda c: c.execute(text(statement)))
        finally:
            await connection.close()

    async def refuses(self, database: str, statement: str) -> bool:
        """Tell whether the service is refused for want of a right; any other fault is raised."""
        try:
            await self.run(database, statement)
        except DatabaseUnavailableError as error:
            if REFUSED not in str(error):
                raise
            return True
        return False

    def _url(self, database: str, login: Login) -> str:
        return self.server.url(database, login.user, login.password)


@pytest.fixture(scope="module")
def estate(server_directory: Path) -> Iterator[Estate]:
    """Run a server of its own, as the passwords of the run's own roles would change."""
    with PostgresServer.start(server_directory / "least-privilege", durable=False) as server:
        databases = create_databases(server.superuser_url, SERVICES)
        for name, made in databases.items():
            url = server.url(name, made.owner.user, made.owner.password)
            asyncio.run(migrate(url, name))
        yield Estate(server, databases)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_changes_what_happens_to_a_fact_and_never_the_fact(
    estate: Estate, service: str
) -> None:
    """Tried column by column; a new column is a fact until it is listed here."""
    changeable: dict[str, list[str]] = {}
    for table, column in sorted(estate.columns(service)):
        if not await estate.refuses(service, CHANGE.format(table, column)):
            changeable.setdefault(table, []).append(column)

    assert {table: " ".join(names) for table, names in changeable.items()} == CHANGEABLE[service]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_removes_nothing_and_owns_nothing(estate: Estate, service: str) -> None:
    """No table loses a row or its shape, and there is no way to more rights."""
    tables = {table for table, _ in estate.columns(service)}
    assert len(tables) > 1
    statements = [
        form.format(table)
        for table in sorted(tables)
        for form in (
            *("DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x integer"),
            *("ALTER TABLE {} DISABLE TRIGGER ALL", "CREATE INDEX ON {} ((1))"),
        )
    ]
    statements += [
        "INSERT INTO alembic_version VALUES ('0000')",
        "CREATE TABLE theirs (x integer)",
        "CREATE SCHEMA theirs",
        "CREATE ROLE theirs",
        f"SET ROLE {service}_owner",
        "SET session_replication_role = replica",
        "SELECT pg_read_file('/etc/hostname')",
        "COPY alembic_version TO PROGRAM 'cat'",
    ]

    allowed = [each for each in statements if not await estate.refuses(service, each)]

    assert allowed == []


@pytest.mark.parametrize("service", SERVICES)
async def test_no_role_enters_another_services_database(estate: Estate, service: str) -> None:
    """Neither the other services' roles nor the owners of their tables; its own do."""
    for name, other in estate.databases.items():
        for login in (other.service, other.owner):
            if name == service:
                await estate.run(service, "SELECT 1", login)
            else:
                with pytest.raises(DatabaseUnavailableError, match=REFUSED):
                    await estate.run(service, "SELECT 1", login)
