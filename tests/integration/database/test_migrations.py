"""Migrations of every service on a real PostgreSQL: up, down, one at a time, and never guessed."""

import asyncio
import secrets
import sys
from collections.abc import Iterator

import pytest

from local_stack.catalogue import base_environment
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import (
    Database,
    MigrationError,
    RevisionMismatchError,
    downgrade,
    migrate,
    require_current,
)

SERVICES = ("customer_provisioner", "usage_ingest", "stripe_reporter")


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """Return each service's package."""
    return str(request.param)


@pytest.fixture
def owner_url(postgres: PostgresServer, service: str, password: str) -> Iterator[str]:
    """Return the owner's URL of an empty database of ``service``."""
    name = f"bare_{secrets.token_hex(4)}"
    run_sql(postgres.superuser_url, f"CREATE DATABASE {name} OWNER {service}_owner")
    yield postgres.url(name, f"{service}_owner", password)
    run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


def schema(url: str) -> str:
    """Return all columns of all tables and views, and what their roles may do with them."""
    return run_sql(
        url,
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2;"
        "SELECT grantee, table_name, column_name, privilege_type"
        " FROM information_schema.column_privileges WHERE table_schema = 'public'"
        " ORDER BY 1, 2, 3, 4",
    )


async def test_up_down_and_up_again_ends_in_the_same_schema(owner_url: str, service: str) -> None:
    """A downgrade leaves nothing behind that an upgrade would trip over."""
    await migrate(owner_url, service)
    first = schema(owner_url)

    await downgrade(owner_url, service, "base")
    emptied = schema(owner_url)
    await migrate(owner_url, service)

    assert all("alembic_version" in line for line in emptied.splitlines())
    assert schema(owner_url) == first


async def test_two_migrations_at_once_wait_for_each_other(owner_url: str, service: str) -> None:
    """Whoever comes second finds the work done."""
    revisions = await asyncio.gather(migrate(owner_url, service), migrate(owner_url, service))

    assert revisions[0] == revisions[1] != "base"


async def test_a_release_works_with_its_own_revision_only_and_says_what_to_do(
    owner_url: str, service: str
) -> None:
    """Behind: migrate first. Ahead: start the newer release."""
    database = Database(owner_url, name="test", pool_size=1)
    try:
        with pytest.raises(RevisionMismatchError, match="run the migrate command"):
            await require_current(database, service)
        await migrate(owner_url, service)
        await require_current(database, service)
        run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
        with pytest.raises(RevisionMismatchError, match="newer release"):
            await require_current(database, service)
    finally:
        await database.close()


async def test_a_service_refuses_to_serve_on_a_wrong_revision(owner_url: str, service: str) -> None:
    """It ends with 1 and one line instead of working with tables it does not know."""
    settings = {
        "AMQP_URL": "amqp://nobody:nothing@127.0.0.1:1/metering",
        "DATABASE_URL": owner_url,
        "STRIPE_SECRET_KEY": "sk_test_none",
        "HTTP_PORT": "29999",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service, "serve"),
        env={**base_environment(), **settings},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert "run the migrate command" in errors.decode()


async def test_a_database_that_is_away_fails_a_migration_in_one_line(service: str) -> None:
    """The text tells the cause and no password."""
    url = "postgresql://owner:hunter2@127.0.0.1:1/nothing"

    with pytest.raises(MigrationError) as error:
        await migrate(url, service)

    assert "hunter2" not in str(error.value)


async def test_a_migration_that_can_never_work_leaves_the_database_as_it_was(
    owner_url: str, service: str
) -> None:
    """It is one transaction."""
    run_sql(owner_url, "CREATE VIEW usage_reports AS SELECT 1 AS in_the_way")
    run_sql(owner_url, "CREATE VIEW meter_calls AS SELECT 1 AS in_the_way")
    run_sql(owner_url, "CREATE VIEW user_profiles AS SELECT 1 AS in_the_way")
    before = schema(owner_url)

    with pytest.raises(MigrationError):
        await migrate(owner_url, service)

    assert schema(owner_url) == before
