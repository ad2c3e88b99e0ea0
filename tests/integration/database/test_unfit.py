"""Databases that cannot serve, and refused logins: what the commands say of them."""

from collections.abc import Iterator

import pytest

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import MigrationError, migrate, revision_fault
from support.commands import Shown, in_a_pipe
from support.databases import Clone, empty_database, opened
from support.vhost import Vhost

NOT_UTF8 = (
    ("customer_provisioner", "LATIN1"),
    ("usage_ingest", "SQL_ASCII"),
    ("stripe_reporter", "EUC_JP"),
)


async def run_command(module: str, *arguments: str, database_url: str, **settings: str) -> Shown:
    """Run a service's command; neither broker nor Stripe answers unless ``settings`` name them."""
    known = {
        "AMQP_URL": "amqp://nobody:nothing@127.0.0.1:1/metering",
        "DATABASE_URL": database_url,
        "STRIPE_SECRET_KEY": "sk_test_none",
        "STRIPE_API_BASE": "http://127.0.0.1:1",
    }
    return await in_a_pipe(module, *arguments, **{**known, **settings})


@pytest.fixture
def owner_url(postgres: Server, service: str, encoding: str, password: str) -> Iterator[str]:
    """Return the owner's URL of a database of ``service`` in ``encoding``."""
    owner = f"{service}_owner"
    options = f"OWNER {owner} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    with empty_database(postgres, options=options) as name:
        yield postgres.url(name, owner, password)


@pytest.mark.parametrize(("service", "encoding"), NOT_UTF8)
async def test_database_in_another_encoding_is_refused(owner_url: str, service: str) -> None:
    """`migrate` leaves it empty; `migrate` and `check` say what to do."""
    with pytest.raises(MigrationError, match=r"encoded in \w+ .*ENCODING 'UTF8'"):
        await migrate(owner_url, service)
    checked = await run_command(service, "check", database_url=owner_url)

    tables = run_sql(owner_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert tables == "0\n"
    assert checked.code == 1
    assert "create it anew with ENCODING 'UTF8'" in checked.output


@pytest.mark.parametrize(
    ("service", "other"),
    [
        ("usage_ingest", "stripe_reporter"),
        ("stripe_reporter", "customer_provisioner"),
        ("customer_provisioner", "usage_ingest"),
    ],
)
async def test_database_of_another_service_is_refused(
    clone: Clone, service: str, other: str
) -> None:
    """Every service has a revision 0002, so that the revision alone proves nothing."""
    url = await clone(other)

    checked = await run_command(service, "check", database_url=url)
    with pytest.raises(MigrationError, match="is another service's"):
        await migrate(url, service)

    assert checked.code == 1
    assert "the database is another service's" in checked.output


async def test_command_names_the_table_that_is_missing(clone: Clone) -> None:
    """The SQLSTATE alone would help no operator."""
    url = await clone("stripe_reporter")

    ended = await run_command("usage_ingest", "status", database_url=url)

    assert ended.code == 1
    assert "SQLSTATE 42P01, a table is missing: is this another service's database?" in ended.output


async def test_readiness_names_another_services_database(clone: Clone) -> None:
    """A mistake in DATABASE_URL shows in `/readyz`."""
    async with opened(await clone("stripe_reporter")) as database:
        fault = await revision_fault(database, "usage_ingest")

    assert fault is not None
    assert "no table usage_events: is DATABASE_URL right?" in fault


async def test_replay_with_a_wrong_password_names_the_setting(clone: Clone, vhost: Vhost) -> None:
    """Neither the library's class nor the password is shown."""
    url = await clone("usage_ingest")
    wrong = vhost.url("usage-ingest").replace(vhost.password, "hunter2")

    ended = await run_command(
        "usage_ingest", "replay", "--execute", database_url=url, AMQP_URL=wrong
    )

    assert ended.code == 1
    assert "the login of AMQP_URL is refused: its user or password is wrong" in ended.output
    assert "hunter2" not in ended.output


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("application_name=mine&options=-c%20geqo%3Doff&connect_timeout=3", 1),
        ("channel_binding=prefer&pgbouncer=false", 1),
        ("channel_binding=require", 2),
        ("pgbouncer=true", 2),
        ("statement_cache_size=0", 2),
    ],
)
async def test_parameter_of_libpq_is_used_or_refused_by_name(
    clone: Clone, query: str, code: int
) -> None:
    """None becomes the driver's TypeError. With exit code 1 the ledger is shown, and no broker."""
    url = f"{await clone('usage_ingest')}?{query}"

    ended = await run_command("usage_ingest", "status", database_url=url)

    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    assert ("oldest unanswered usage" in ended.output) is (code == 1)
    assert (query.partition("=")[0] in ended.output) is (code == 2)


async def test_stripe_key_with_a_line_break_fails_the_check(clone: Clone) -> None:
    """Every call with it would fail before a byte was sent."""
    ended = await run_command(
        "stripe_reporter",
        "check",
        database_url=await clone("stripe_reporter"),
        STRIPE_SECRET_KEY="sk_test_1\nsk_test_2",
    )

    assert ended.code == 2
    assert "STRIPE_SECRET_KEY: holds a line break" in ended.output
