"""Databases that can't serve, and what commands say of them and of a login that is refused."""

import secrets
from collections.abc import Awaitable, Callable, Iterator

import pytest

from integration.database.commands import run_command
from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database, MigrationError, migrate, revision_fault
from rig.vhost import Vhost

OTHERWISE_ENCODED = (
    ("customer_provisioner", "LATIN1"),
    ("usage_ingest", "SQL_ASCII"),
    ("stripe_reporter", "EUC_JP"),
)

Clone = Callable[[str], Awaitable[str]]


@pytest.fixture
def otherwise_encoded(
    postgres: Server, service: str, encoding: str, password: str
) -> Iterator[str]:
    """Return the owner's URL of a database of ``service`` in ``encoding``."""
    name, owner = f"bare_{secrets.token_hex(4)}", f"{service}_owner"
    run_sql(
        postgres.superuser_url,
        f"CREATE DATABASE {name} OWNER {owner} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0",
    )
    yield postgres.url(name, owner, password)
    run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("service", "encoding"), OTHERWISE_ENCODED)
async def test_database_in_another_encoding_is_refused_before_it_refuses_names(
    otherwise_encoded: str, service: str
) -> None:
    """By `migrate`, which leaves it empty, and by `check`; both say what to do."""
    with pytest.raises(MigrationError, match=r"encoded in \w+ .*ENCODING 'UTF8'"):
        await migrate(otherwise_encoded, service)
    checked = await run_command(service, "check", otherwise_encoded)

    assert (
        run_sql(otherwise_encoded, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        == "0\n"
    )
    assert checked.code == 1
    assert "create it anew with ENCODING 'UTF8'" in checked.text


@pytest.mark.parametrize(
    ("service", "others"),
    [
        ("usage_ingest", "stripe_reporter"),
        ("stripe_reporter", "customer_provisioner"),
        ("customer_provisioner", "usage_ingest"),
    ],
)
async def test_another_services_database_is_refused_though_its_revision_fits(
    clone: Clone, service: str, others: str
) -> None:
    """Every service has a revision 0002: by it alone `check` found nothing wrong."""
    url = await clone(others)

    checked = await run_command(service, "check", url)
    with pytest.raises(MigrationError, match="is another service's"):
        await migrate(url, service)

    assert checked.code == 1
    assert "the database is another service's" in checked.text


async def test_command_on_another_services_database_says_what_is_missing(clone: Clone) -> None:
    """A code of five characters alone helps nobody."""
    ended = await run_command("usage_ingest", "status", await clone("stripe_reporter"))

    assert ended.code == 1
    assert "SQLSTATE 42P01, a table is missing: is this another service's database?" in ended.text


async def test_readiness_names_another_services_database(clone: Clone) -> None:
    """A service that was pointed at it by a mistake in its settings says so."""
    database = Database(await clone("stripe_reporter"), name="test", pool_size=1)

    fault = await revision_fault(database, "usage_ingest")
    await database.close()

    assert fault is not None
    assert "no table usage_events: is DATABASE_URL right?" in fault


async def test_replay_with_a_wrong_password_names_the_setting(clone: Clone, vhost: Vhost) -> None:
    """Not the library's class, and not the password."""
    wrong = vhost.url("usage-ingest").replace(vhost.password, "hunter2")

    ended = await run_command(
        "usage_ingest", "replay", await clone("usage_ingest"), "--execute", amqp_url=wrong
    )

    assert ended.code == 1
    assert "the login of AMQP_URL is refused: its user or password is wrong" in ended.text
    assert "hunter2" not in ended.text


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
async def test_parameters_of_libpq_are_kept_or_refused_in_words(
    clone: Clone, query: str, code: int
) -> None:
    """They came out as the driver's TypeErrors. With 1 the ledger is shown, and no broker."""
    ended = await run_command("usage_ingest", "status", f"{await clone('usage_ingest')}?{query}")

    assert ended.code == code, ended.text
    assert "Traceback" not in ended.text
    assert ("oldest unanswered usage" in ended.text) is (code == 1)
    assert (query.partition("=")[0] in ended.text) is (code == 2)


async def test_stripe_key_of_two_lines_is_refused_at_check(clone: Clone) -> None:
    """Each call with it would fail before a byte was sent."""
    ended = await run_command(
        "stripe_reporter",
        "check",
        await clone("stripe_reporter"),
        stripe_secret_key="sk_test_1\nsk_test_2",
    )

    assert ended.code == 2
    assert "STRIPE_SECRET_KEY: holds a line break" in ended.text
