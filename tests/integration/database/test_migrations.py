"""Migrations of every service on a real PostgreSQL: up, down, one at a time, and never guessed."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

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
    revision_fault,
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


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Open a database while the context lasts."""
    database = Database(url, name="test", pool_size=1)
    try:
        yield database
    finally:
        await database.close()


def said(revision: str, oldest: str) -> str:
    """Return the SQL by which a newer release's migration says whom its schema serves."""
    text = f"revision {revision} serves releases from revision {oldest} on"
    return f"COMMENT ON TABLE alembic_version IS '{text}'"


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


async def test_a_release_works_with_its_own_revision_and_says_of_others_what_to_do(
    owner_url: str, service: str
) -> None:
    """Behind: migrate first. Ahead: start the newer release."""
    async with opened(owner_url) as database:
        with pytest.raises(RevisionMismatchError, match="run the migrate command"):
            await require_current(database, service)
        await migrate(owner_url, service)
        await require_current(database, service)
        run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
        with pytest.raises(RevisionMismatchError, match="newer release"):
            await require_current(database, service)
        with pytest.raises(MigrationError):
            await migrate(owner_url, service)


async def test_a_release_goes_on_working_on_a_newer_database_that_serves_it(
    owner_url: str, service: str
) -> None:
    """Its readiness stays, it may be started again, and its `migrate` leaves the database alone."""
    await migrate(owner_url, service)
    run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
    run_sql(owner_url, said("of_tomorrow", "0001"))

    async with opened(owner_url) as database:
        await require_current(database, service)
        fault = await revision_fault(database, service)

    assert fault is None
    assert await migrate(owner_url, service) == "of_tomorrow"


@pytest.mark.parametrize(
    ("about", "oldest"), [("of_tomorrow", "of_today"), ("of_today", "0001")], ids=["newer", "stale"]
)
async def test_a_newer_database_serves_nobody_it_does_not_name(
    owner_url: str, service: str, about: str, oldest: str
) -> None:
    """Neither a release before the oldest it names, nor by what is left of another revision."""
    await migrate(owner_url, service)
    run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
    run_sql(owner_url, said(about, oldest))

    async with opened(owner_url) as database:
        with pytest.raises(RevisionMismatchError, match="newer release"):
            await require_current(database, service)


@pytest.mark.parametrize("service", ["usage_ingest"])
async def test_the_database_says_which_releases_its_revision_serves(
    owner_url: str, service: str
) -> None:
    """Each migration names the oldest itself; one that names none serves its own release only."""
    told = []
    for move, revision in ((migrate, "head"), (downgrade, "0001"), (downgrade, "base")):
        await move(owner_url, service, revision)
        told.append(run_sql(owner_url, "SELECT obj_description('alembic_version'::regclass)"))

    assert [each.strip() for each in told] == [
        "revision 0003 serves releases from revision 0001 on",
        "revision 0001 serves releases from revision 0001 on",
        "",
    ]


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
