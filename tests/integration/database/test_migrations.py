"""Migrations of every service on a real PostgreSQL: up, down, and one at a time."""

import asyncio
from collections.abc import Iterator

import pytest

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import (
    MigrationError,
    RevisionMismatchError,
    downgrade,
    migrate,
    require_current,
    revision_fault,
)
from support.commands import in_a_pipe
from support.databases import MODULES, empty_database, opened


@pytest.fixture(params=MODULES)
def service(request: pytest.FixtureRequest) -> str:
    """Return each service's package."""
    return str(request.param)


@pytest.fixture
def owner_url(postgres: PostgresServer, service: str, password: str) -> Iterator[str]:
    """Return the owner's URL of an empty database of ``service``."""
    owner = f"{service}_owner"
    with empty_database(postgres, options=f"OWNER {owner}") as name:
        yield postgres.url(name, owner, password)


def comment_sql(revision: str, oldest: str) -> str:
    """Return the SQL by which a newer release's migration names the releases it serves."""
    text = f"revision {revision} serves releases from revision {oldest} on"
    return f"COMMENT ON TABLE alembic_version IS '{text}'"


def schema(url: str) -> str:
    """Return all columns of all tables and views, and their roles' rights on them."""
    return run_sql(
        url,
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2;"
        "SELECT grantee, table_name, column_name, privilege_type"
        " FROM information_schema.column_privileges WHERE table_schema = 'public'"
        " ORDER BY 1, 2, 3, 4",
    )


async def test_up_down_and_up_again_gives_the_same_schema(owner_url: str, service: str) -> None:
    """A downgrade leaves nothing behind that an upgrade would trip over."""
    await migrate(owner_url, service)
    first = schema(owner_url)

    await downgrade(owner_url, service, "base")
    emptied = schema(owner_url)
    await migrate(owner_url, service)

    assert all("alembic_version" in line for line in emptied.splitlines())
    assert schema(owner_url) == first


async def test_of_two_migrations_at_once_the_second_waits(owner_url: str, service: str) -> None:
    """The second finds nothing left to do."""
    revisions = await asyncio.gather(migrate(owner_url, service), migrate(owner_url, service))

    assert revisions[0] == revisions[1] != "base"


async def test_release_accepts_its_own_revision_alone(owner_url: str, service: str) -> None:
    """An older revision: run `migrate`. A newer one: start the newer release."""
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


async def test_release_works_on_a_newer_schema_that_serves_it(owner_url: str, service: str) -> None:
    """It stays ready, can be started again, and its `migrate` changes nothing."""
    await migrate(owner_url, service)
    run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
    run_sql(owner_url, comment_sql("of_tomorrow", "0001"))

    async with opened(owner_url) as database:
        await require_current(database, service)
        fault = await revision_fault(database, service)

    assert fault is None
    assert await migrate(owner_url, service) == "of_tomorrow"


@pytest.mark.parametrize(
    ("about", "oldest"), [("of_tomorrow", "of_today"), ("of_today", "0001")], ids=["newer", "stale"]
)
async def test_newer_schema_serves_only_the_releases_it_names(
    owner_url: str, service: str, about: str, oldest: str
) -> None:
    """Neither older releases than it names, nor any by another revision's comment."""
    await migrate(owner_url, service)
    run_sql(owner_url, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
    run_sql(owner_url, comment_sql(about, oldest))

    async with opened(owner_url) as database:
        with pytest.raises(RevisionMismatchError, match="newer release"):
            await require_current(database, service)


@pytest.mark.parametrize("service", ["usage_ingest"])
async def test_revision_names_the_releases_it_serves(owner_url: str, service: str) -> None:
    """Each migration names the oldest; one that names none serves its own release only."""
    comments = []
    for move, revision in ((migrate, "head"), (downgrade, "0001"), (downgrade, "base")):
        await move(owner_url, service, revision)
        comments.append(run_sql(owner_url, "SELECT obj_description('alembic_version'::regclass)"))

    assert [each.strip() for each in comments] == [
        "revision 0012 serves releases from revision 0001 on",
        "revision 0001 serves releases from revision 0001 on",
        "",
    ]


async def test_service_on_a_wrong_revision_exits_with_1(owner_url: str, service: str) -> None:
    """It prints one line instead of working with tables of another revision."""
    ended = await in_a_pipe(
        service,
        "serve",
        AMQP_URL="amqp://nobody:nothing@127.0.0.1:1/metering",
        DATABASE_URL=owner_url,
        STRIPE_SECRET_KEY="sk_test_none",
        HTTP_PORT="29999",
    )

    assert ended.code == 1
    assert "run the migrate command" in ended.errors


async def test_migration_without_a_database_hides_the_password(service: str) -> None:
    """The error names the cause alone."""
    url = "postgresql://owner:hunter2@127.0.0.1:1/nothing"

    with pytest.raises(MigrationError) as error:
        await migrate(url, service)

    assert "hunter2" not in str(error.value)


async def test_failed_migration_leaves_the_schema_unchanged(owner_url: str, service: str) -> None:
    """A migration is one transaction."""
    run_sql(owner_url, "CREATE VIEW usage_reports AS SELECT 1 AS in_the_way")
    run_sql(owner_url, "CREATE VIEW meter_calls AS SELECT 1 AS in_the_way")
    run_sql(owner_url, "CREATE VIEW user_profiles AS SELECT 1 AS in_the_way")
    before = schema(owner_url)

    with pytest.raises(MigrationError):
        await migrate(owner_url, service)

    assert schema(owner_url) == before


@pytest.mark.parametrize("service", ["usage_ingest"], indirect=True)
async def test_index_whose_making_was_interrupted_is_made_again(
    postgres: PostgresServer, owner_url: str, service: str
) -> None:
    """PostgreSQL keeps what an interrupted `CREATE INDEX CONCURRENTLY` made, and never reads it."""
    await migrate(owner_url, service, "0004")
    run_sql(owner_url, "CREATE INDEX usage_reports_superseded ON usage_reports (claim_id)")
    run_sql(owner_url, "CREATE INDEX usage_events_unclaimed ON usage_events (user_id)")
    name = owner_url.rpartition("/")[2]
    superuser_url = postgres.superuser_url.rpartition("/")[0] + f"/{name}"
    interrupted = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
    run_sql(superuser_url, interrupted.format("usage_events_unclaimed"))

    await migrate(owner_url, service)

    invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
    assert not run_sql(owner_url, invalid).strip()
