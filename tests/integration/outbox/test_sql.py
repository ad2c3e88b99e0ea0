"""The SQL in a host's database: it writes events, and never harms a statement of the host."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from integration.outbox.conftest import SET_UP, Host
from local_stack.sql import SqlFailedError
from nexus_contracts import (
    Event,
    EventData,
    ToolExecuted,
    ToolExecutedV1,
    ToolExecutedV2,
    UserCreated,
    UserCreatedV2,
    UserUpdated,
    read_event,
)
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_outbox.installation import sql_file
from support.databases import opened
from support.pages import DOCS, blocks

FORBIDDEN = (
    "SELECT * FROM metering.outbox",
    "INSERT INTO metering.outbox (id, event) VALUES (gen_random_uuid(), '{}')",
    "DELETE FROM metering.outbox",
    "SELECT metering.prune('0', 1)",
    "SELECT metering.store(gen_random_uuid(), '{}')",
    "SELECT metering.hold(gen_random_uuid(), '{}', '', '', true)",
    "SELECT metering.admit_caller('signup')",
    "SELECT * FROM metering.status",
    "SELECT * FROM metering.held",
    "CREATE TABLE metering.own (id int)",
)

JOBS = """
CREATE TABLE jobs (id uuid, event_id uuid, user_id uuid, server_id text, tool_name text,
                   status text, ended_at timestamptz);
INSERT INTO jobs (id, event_id, user_id, server_id, tool_name)
VALUES ('c0a80101-0000-4000-8000-000000000001', '00000000-0000-0000-0000-000000000002',
        gen_random_uuid(), 's', 't');
"""
"""What a queue stores of its jobs."""


def events(host: Host) -> list[Event[EventData]]:
    """Read all events of the outbox by their contracts."""
    lines = host.sql("SELECT event FROM metering.outbox ORDER BY waiting_since").splitlines()
    return [read_event(line.encode(), OUTSIDE_EVENTS) for line in lines]


def test_a_new_user_becomes_a_valid_event(host: Host) -> None:
    """The role that signs up may only insert into the table of users."""
    user = host.sign_up(" ada@example.com ", "Ada\tLovelace" + "x" * 300)

    [event] = events(host)
    assert isinstance(event.data, UserCreated)
    assert (event.data.user_id, event.data.email) == (user, "ada@example.com")
    assert event.data.name == ("AdaLovelace" + "x" * 300)[:256]
    assert event.source == "platform"


@pytest.mark.parametrize("email", [None, "", "  "])
def test_a_user_without_an_address_becomes_an_event_without_one(
    host: Host, email: str | None
) -> None:
    """In version 2, the only one that can say so."""
    user = host.sign_up(email, "Ada")

    [event] = events(host)
    assert event.data == UserCreatedV2(user_id=user, name="Ada")


def test_changes_of_a_user_become_events_in_their_order(host: Host) -> None:
    """With what changed and nothing else; their times are in the order of the changes."""
    user = host.sign_up(None, "Ada")

    for change in (
        "email = 'first@example.com'",
        "email = 'second@example.com', raw_user_meta_data = '{\"full_name\": \"Eve\"}'",
        "raw_user_meta_data = NULL",
        "email = NULL",
        'raw_user_meta_data = \'{"plan": "pro"}\'',
    ):
        update = f"SET {change} WHERE id = '{user}'"
        host.sql(f"UPDATE auth.users {update}")

    _created, *changed = events(host)
    assert [event.data for event in changed] == [
        UserUpdated(user_id=user, email="first@example.com"),
        UserUpdated(user_id=user, email="second@example.com", name="Eve"),
        UserUpdated(user_id=user, name=""),
    ]
    times = [event.time for event in changed]
    assert times == sorted(set(times))


def test_two_changes_in_one_transaction_have_times_of_their_own(host: Host) -> None:
    """The later one counts, whatever order the events arrive in."""
    host.sign_up()
    first, second = (f"SET email = '{each}@example.com'" for each in ("first", "second"))

    host.sql(f"BEGIN; UPDATE auth.users {first}; UPDATE auth.users {second}; COMMIT")

    latest = max(events(host), key=lambda event: event.time)
    assert isinstance(latest.data, UserUpdated)
    assert latest.data.email == "second@example.com"


def test_a_rolled_back_run_has_no_event(host: Host) -> None:
    """A run and its event commit together."""
    insert = "INSERT INTO runs VALUES (gen_random_uuid())"
    call = f"SELECT metering.tool_executed('{uuid4()}', 'weather', 'forecast', 'hub')"

    host.sql(f"BEGIN; {insert}; {call}; ROLLBACK", "hub")
    assert events(host) == []
    host.sql(f"BEGIN; {insert}; {call}; COMMIT", "hub")

    assert len(events(host)) == 1


def test_a_run_carries_all_that_was_said_of_it(host: Host) -> None:
    """Its names are those of the contract."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    run = host.run_tool(
        more=", status => 'failed', token_count => 12, metadata => '{\"model\": null}',"
        " executed_at => '2026-03-01 12:00:00.123456+02', source => 'route',"
        f" traceparent => '{traceparent}'"
    )

    [event] = events(host)
    assert isinstance(event.data, ToolExecuted)
    assert (event.id, event.source, event.traceparent) == (run, "route", traceparent)
    assert event.time.isoformat() == "2026-03-01T10:00:00.123456+00:00"
    assert (event.data.status, event.data.token_count) == ("failed", 12)
    assert event.data.metadata == {"model": None}


def test_a_run_with_its_model_or_tokens_by_kind_is_an_event_of_version_2(host: Host) -> None:
    """Any of them makes it so, and without them it stays version 1."""
    host.run_tool()
    host.run_tool(more=", model => 'small', input_tokens => 10, output_tokens => 2")
    host.run_tool(more=", cached_tokens => 0")

    plain, detailed, cached = (event.data for event in events(host))
    assert type(plain) is ToolExecutedV1
    assert isinstance(detailed, ToolExecutedV2)
    assert (detailed.model, detailed.input_tokens, detailed.output_tokens) == ("small", 10, 2)
    assert isinstance(cached, ToolExecutedV2)
    assert (cached.model, cached.cached_tokens) == (None, 0)


def test_metadata_that_is_too_large_is_left_out(host: Host) -> None:
    """It has no effect on billing; the body would be refused as a whole."""
    host.run_tool(more=", metadata => jsonb_build_object('log', repeat('x', 300000))")

    [event] = events(host)
    assert isinstance(event.data, ToolExecuted)
    assert event.data.metadata is None


def test_a_repeated_call_with_its_id_writes_one_event(host: Host) -> None:
    """The same run again changes nothing; another run with the id is held for the operator."""
    user, run = uuid4(), uuid4()

    for _ in range(2):
        assert host.run_tool(user, f", event_id => '{run}'") == run
    assert host.sql("SELECT held FROM metering.status") == "0"
    host.run_tool(uuid4(), f", event_id => '{run}'")

    assert len(events(host)) == 1
    assert host.sql("SELECT reason, recoverable FROM metering.held") == "event_id_taken|f"


def test_nulls_never_fail_the_caller(host: Host) -> None:
    """The event is invalid, which the loop finds; the caller's transaction commits."""
    answer = host.sql("SELECT metering.tool_executed(NULL, NULL, NULL, NULL, NULL)", "hub")

    assert host.sql("SELECT id FROM metering.outbox") == answer


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_caller_may_do_nothing_else(host: Host, statement: str) -> None:
    """A hub can neither read what others wrote nor write events of its own making."""
    with pytest.raises(SqlFailedError, match="permission denied"):
        host.sql(statement, "hub")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM metering.outbox",
        "UPDATE metering.outbox SET event = '{}'",
        "INSERT INTO metering.outbox (id, event) VALUES (gen_random_uuid(), '{}')",
        "SELECT * FROM auth.users",
    ],
)
def test_the_loop_can_neither_change_nor_delete_events(host: Host, statement: str) -> None:
    """A stolen password of the loop can't forge usage."""
    with pytest.raises(SqlFailedError, match="permission denied"):
        host.sql(statement, "outbox_loop")


def test_a_hostile_search_path_changes_nothing(host: Host) -> None:
    """Functions and tables of the caller's own are not found by the definer's functions."""
    host.sql("GRANT TEMPORARY, CREATE ON DATABASE " + host.name + " TO hub")

    host.sql(
        "CREATE SCHEMA evil; CREATE TEMP TABLE outbox (id uuid, event jsonb);"
        "CREATE FUNCTION evil.to_char(timestamp, text) RETURNS text LANGUAGE sql"
        " AS 'SELECT ''evil''';"
        "SET search_path = evil, pg_temp, pg_catalog;"
        f"SELECT metering.tool_executed('{uuid4()}', 'weather', 'forecast', 'hub')",
        "hub",
    )

    assert len(events(host)) == 1


async def test_a_locked_outbox_delays_a_sign_up_for_a_moment_only(host: Host) -> None:
    """The event is held, and moved into the outbox once it is free."""
    async with opened(host.url("host_owner")) as owner, owner.engine.connect() as connection:
        await connection.execute(text("LOCK TABLE metering.outbox"))
        user = await asyncio.to_thread(host.sign_up)
        run = await asyncio.to_thread(host.run_tool)
        await connection.rollback()

    assert host.sql("SELECT reason FROM metering.held").splitlines() == ["SQLSTATE 55P03"] * 2
    assert host.sql("SELECT metering.recover(10)") == "2"
    first, second = events(host)
    assert isinstance(first.data, UserCreated)
    assert (first.data.user_id, second.id) == (user, run)
    assert host.sql("SELECT held FROM metering.status") == "0"


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE metering.outbox CASCADE",
        "DROP TABLE metering.held CASCADE",
        "DROP TABLE metering.outbox, metering.held CASCADE",
        "DROP FUNCTION metering.store",
        "DROP FUNCTION metering.hold",
        "DROP FUNCTION metering.envelope",
        "ALTER TABLE metering.outbox ADD CHECK (false) NOT VALID",
        "TRUNCATE metering.settings",
        "DROP TABLE metering.settings",
        "DROP FUNCTION metering.user_facts",
    ],
)
def test_a_damaged_outbox_never_fails_the_host(host: Host, damage: str) -> None:
    """Sign-ups and runs go on, whatever an operator breaks."""
    host.sql(damage)

    host.sign_up()
    host.sign_up(None)
    host.sql("UPDATE auth.users SET email = 'new@example.com'")
    host.run_tool()

    assert host.sql("SELECT count(*) FROM auth.users") == "2"


def test_installing_again_keeps_events_and_rights(host: Host) -> None:
    """As an upgrade does."""
    host.sign_up()

    host.sql(sql_file("install"))
    host.sql(SET_UP)
    host.run_tool()

    assert len(events(host)) == 2


def test_uninstalling_refuses_while_events_wait(host: Host) -> None:
    """And then leaves the host as it was, without the trigger."""
    host.sign_up()

    with pytest.raises(SqlFailedError, match="not published"):
        host.sql(sql_file("uninstall"))
    host.sign_up()
    assert len(events(host)) == 2
    host.sql("DELETE FROM metering.outbox")
    host.sql(sql_file("uninstall"))

    host.sign_up()
    assert host.sql("SELECT to_regnamespace('metering') IS NULL") == "t"
    assert host.sql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == "0"


def test_another_schema_of_that_name_is_left_alone(bare_host: Host) -> None:
    """Neither file touches it."""
    bare_host.sql("CREATE SCHEMA metering")

    for name in ("install", "uninstall"):
        with pytest.raises(SqlFailedError, match="schema"):
            bare_host.sql(sql_file(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'auth.users', 'email'", 'no column "email" of type uuid'),
        ("'auth.users', email_column => 'mail'", 'no column "mail"'),
        ("'auth.users', name_path => '{meta,name}'", 'no column "meta"'),
    ],
)
def test_a_wrong_column_is_named_in_the_error(host: Host, arguments: str, message: str) -> None:
    """When the trigger is made, not when a user signs up."""
    with pytest.raises(SqlFailedError, match=message):
        host.sql(f"SELECT metering.watch_users({arguments})")


def test_columns_may_have_other_names(host: Host) -> None:
    """Also names that need quotes, in a table without names of users."""
    host.sql('CREATE TABLE "My Users" ("User Id" uuid, "E-Mail" text)')
    host.sql("""SELECT metering.watch_users('"My Users"', 'User Id', 'E-Mail')""")

    user = uuid4()
    host.sql(f"""INSERT INTO "My Users" SELECT '{user}', 'a@b'""")

    [event] = events(host)
    assert isinstance(event.data, UserCreated)
    assert event.data == UserCreated(user_id=UUID(str(user)), email="a@b")


def test_the_documents_statements_work(host: Host) -> None:
    """The guides' calls, and the README's first and third block: naming, watching, calling."""
    watch, _admit, call = blocks(DOCS.parent / "libs/outbox/README.md", "sql")
    guide_call, *_ = blocks(DOCS / "publishing/database.md", "sql")
    [job_call] = blocks(DOCS / "publishing/async-job.md", "sql")

    host.sql(watch)
    host.sql(call, "hub")
    host.sql(guide_call, "hub")
    host.sql(JOBS)
    for _ in range(2):
        host.sql(job_call)

    assert [each.source for each in events(host)] == ["acme"] * 3
    assert events(host)[2].id == UUID(int=2)
