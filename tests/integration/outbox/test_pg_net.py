"""The trigger that announces users by pg_net: it makes the call, and never harms a sign-up.

pg_net is no part of PostgreSQL. The stand-in has its signature, its rule for the content type and
its way: the function queues a request, and a worker sends it once after the commit.
"""

import json
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from integration.events_api.conftest import KEY as API_KEY
from integration.events_api.conftest import running_api
from integration.outbox.conftest import Host
from local_stack.sql import SqlFailedError, run_sql
from local_stack.urls import login_of
from nexus_contracts import Event, UserCreated, read_event
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import USER_CREATED_QUEUE
from nexus_outbox.installation import sql_file
from support.commands import in_a_pipe
from support.databases import Clone
from support.events_api_stand_in import EventsApi, stand_in
from support.pages import DOCS, blocks
from support.vhost import Vhost

PAGE = DOCS / "publishing" / "database.md"

PG_NET = """
CREATE SCHEMA net;
CREATE TABLE net.http_request_queue (
    id bigint GENERATED ALWAYS AS IDENTITY, url text, headers jsonb, body text);
CREATE FUNCTION net.http_post(
    url text, body jsonb DEFAULT '{}', params jsonb DEFAULT '{}',
    headers jsonb DEFAULT '{"Content-Type": "application/json"}',
    timeout_milliseconds integer DEFAULT 5000
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    request bigint;
BEGIN
    IF headers ->> 'Content-Type' <> 'application/json' THEN
        RAISE EXCEPTION 'Content-Type header must be "application/json"';
    END IF;
    INSERT INTO net.http_request_queue (url, headers, body) VALUES (url, headers, body::text)
    RETURNING id INTO request;
    RETURN request;
END $$;
GRANT USAGE ON SCHEMA net TO host_owner;
GRANT INSERT, SELECT ON net.http_request_queue TO host_owner;
"""

NAME = "name_path => '{raw_user_meta_data,full_name}'"
WATCH = f"SELECT metering_pg_net.watch_users('auth.users', {NAME})"

KEY = "nexus_key_of_a_test"


@pytest.fixture
async def api() -> AsyncIterator[EventsApi]:
    """Return an API that takes any key."""
    async with stand_in(key=None) as made:
        yield made


def users(api: EventsApi) -> list[Event[UserCreated]]:
    """Read the users that came."""
    return api.events([UserCreated])


@pytest.fixture
def netted(bare_host: Host, api: EventsApi) -> Host:
    """Return a host with pg_net's stand-in, the settings and the trigger."""
    superuser(bare_host, PG_NET)
    bare_host.sql(sql_file("install-pg-net"))
    bare_host.sql(WATCH)
    settle(bare_host, "app.edge_function_url", api.url + "/")
    settle(bare_host, "app.service_role_key", KEY)
    return bare_host


def superuser(host: Host, statement: str) -> str:
    """Run statements as the superuser."""
    login = login_of(host.server.superuser_url)
    return run_sql(host.server.url(host.name, login.user, login.password), statement)


def settle(host: Host, setting: str, value: str) -> None:
    """Set what new sessions of the database have; PostgreSQL 15 and later want a superuser."""
    superuser(host, f"ALTER DATABASE {host.name} SET {setting} = '{value}'")


async def work(host: Host) -> list[int | None]:
    """Send what waits, each request once, as pg_net's worker does; return the statuses."""
    taken = superuser(
        host, "DELETE FROM net.http_request_queue RETURNING jsonb_build_array(url, headers, body)"
    )
    statuses: list[int | None] = []
    async with aiohttp.ClientSession() as session:
        for url, headers, body in map(json.loads, taken.splitlines()):
            try:
                async with session.post(url, headers=headers, data=body.encode()) as answer:
                    statuses.append(answer.status)
            except aiohttp.ClientConnectionError:
                statuses.append(None)
    return statuses


async def test_a_new_user_is_announced(netted: Host, api: EventsApi) -> None:
    """The role that signs up may only insert into the table of users."""
    user = netted.sign_up(" ada@example.com ", "Ada\tLovelace")

    assert await work(netted) == [202]
    [event] = users(api)
    assert (event.source, event.data.user_id) == ("platform", user)
    assert (event.data.email, event.data.name) == ("ada@example.com", "AdaLovelace")
    [headers] = api.headers
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"


async def test_the_events_api_takes_what_pg_net_sends(netted: Host, vhost: Vhost) -> None:
    """As it is, from the trigger to the queue."""
    publisher = await Publisher.connect(vhost.url("publisher"), name="events-api")
    async with running_api(publisher) as running:
        own = f"SET url = '{running.url}', api_key = '{API_KEY}'"
        netted.sql(f"UPDATE metering_pg_net.settings {own}")
        user = netted.sign_up(name="Ada Lovelace")

        assert await work(netted) == [202]

    [got] = await vhost.peek(USER_CREATED_QUEUE)
    assert read_event(got.body, [UserCreated]).data.user_id == user


async def test_the_first_address_is_announced_and_later_ones_are_not(
    netted: Host, api: EventsApi
) -> None:
    """As when an anonymous user adds an address."""
    user = netted.sign_up(None)
    assert await work(netted) == []

    for address in ("first@example.com", "second@example.com"):
        netted.sql(f"UPDATE auth.users SET email = '{address}' WHERE id = '{user}'")  # noqa: S608

    await work(netted)
    assert [event.data.email for event in users(api)] == ["first@example.com"]


async def test_own_settings_come_before_those_of_the_platform(netted: Host, api: EventsApi) -> None:
    """For a platform whose settings are for other functions, or who may not set any."""
    settle(netted, "app.edge_function_url", "http://127.0.0.1:1")
    own = f"SET source = 'acme', url = '{api.url}', api_key = 'own-key'"
    netted.sql(f"UPDATE metering_pg_net.settings {own}")

    netted.sign_up()

    assert await work(netted) == [202]
    assert [event.source for event in users(api)] == ["acme"]
    assert api.headers[0]["Authorization"] == "Bearer own-key"


@pytest.mark.parametrize(
    "damage",
    [
        "TRUNCATE metering_pg_net.settings",
        "DROP TABLE metering_pg_net.settings CASCADE",
        "ALTER DATABASE {} RESET ALL",
        "ALTER DATABASE {} SET app.service_role_key = ''",
        "DROP FUNCTION net.http_post",
        "DROP SCHEMA net CASCADE",
        "REVOKE ALL ON SCHEMA net FROM host_owner",
        "ALTER TABLE net.http_request_queue ADD CHECK (false)",
        "DROP FUNCTION metering_pg_net.user_changed CASCADE",
    ],
)
async def test_a_sign_up_never_fails(netted: Host, damage: str) -> None:
    """Nor does it without an address, whatever an operator breaks."""
    superuser(netted, damage.format(netted.name))

    netted.sign_up()
    netted.sign_up(None)
    netted.sign_up("", "A")

    assert netted.sql("SELECT count(*) FROM auth.users") == "3"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT metering_pg_net.watch_users('auth.users')",
        "SELECT api_key FROM metering_pg_net.settings",
        "SELECT net.http_post('x')",
    ],
)
def test_the_role_that_signs_up_may_do_nothing_else(netted: Host, statement: str) -> None:
    """It needs no right on pg_net."""
    with pytest.raises(SqlFailedError, match="permission denied"):
        netted.sql(statement, "signup")


async def test_it_is_installed_again_and_removed(netted: Host, api: EventsApi) -> None:
    """Twice is once; afterwards the host is as it was."""
    netted.sql(sql_file("install-pg-net"))
    netted.sql(WATCH)
    netted.sign_up()
    await work(netted)
    assert len(users(api)) == 1

    netted.sql(sql_file("uninstall-pg-net"))
    netted.sql(sql_file("uninstall-pg-net"))

    netted.sign_up()
    assert await work(netted) == []
    assert netted.sql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == "0"
    assert netted.sql("SELECT to_regnamespace('metering_pg_net') IS NULL") == "t"


def test_the_pages_statements_work(netted: Host) -> None:
    """Those about pg_net, as they stand."""
    _, settings, watch = blocks(PAGE, "sql")

    netted.sql(settings)
    netted.sql(watch)
    netted.sign_up()

    parts = "url, headers ->> 'Authorization', body::jsonb ->> 'source'"
    queued = superuser(netted, f"SELECT {parts} FROM net.http_request_queue")  # noqa: S608
    assert queued.strip() == "https://metering.example.com/v1/events|Bearer the key|acme"


def test_it_is_not_installed_without_pg_net(bare_host: Host) -> None:
    """A trigger that could send nothing would hide that."""
    with pytest.raises(SqlFailedError, match="pg_net is not there"):
        bare_host.sql(sql_file("install-pg-net"))


def test_another_schema_of_that_name_is_left_alone(bare_host: Host) -> None:
    """Neither file touches it."""
    bare_host.sql("CREATE SCHEMA metering_pg_net")

    for name in ("install-pg-net", "uninstall-pg-net"):
        with pytest.raises(SqlFailedError, match="schema"):
            bare_host.sql(sql_file(name))


@pytest.mark.long
async def test_a_missed_user_is_repaired_by_a_backfill(
    netted: Host, clone: Clone, vhost: Vhost
) -> None:
    """The API was away, and pg_net does not retry. The list is made by the page's own query."""
    netted.sql("UPDATE metering_pg_net.settings SET url = 'http://127.0.0.1:1'")
    missed = netted.sign_up("ada@example.com", "Ada Lovelace")
    netted.sign_up(None)
    assert await work(netted) == [None]
    assert await work(netted) == []

    [query] = re.findall(r"--csv -c \"(SELECT.*?)\"", PAGE.read_text("utf-8"), re.DOTALL)
    table = netted.sql(f"COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)")
    ended = await in_a_pipe(
        "customer_provisioner",
        *("backfill", "--execute"),
        given=table,
        AMQP_URL=vhost.url("customer-provisioner"),
        DATABASE_URL=await clone("customer_provisioner"),
    )

    assert ended.code == 0, ended.output
    [announced] = await vhost.peek(USER_CREATED_QUEUE)
    event = read_event(announced.body, [UserCreated])
    assert (event.data.user_id, event.data.name) == (missed, "Ada Lovelace")
