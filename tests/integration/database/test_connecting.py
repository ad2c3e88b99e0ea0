"""Sessions are opened where they can write, at whichever host and address answers."""

from urllib.parse import urlsplit

import pytest

from integration.database.conftest import LIMIT
from integration.database.sessions import (
    at,
    make_the_same,
    port_of,
    probe_seconds,
    reload,
    setting_of,
)
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from nexus_database import DatabaseUnavailableError
from support.databases import opened
from support.hosts import OTHER_LOOPBACK, resolve, silent_server
from support.waiting import eventually


async def test_silent_first_address_of_a_name_costs_one_limit(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is reached, and tried first from then on."""
    resolve(monkeypatch, {"database.test": (OTHER_LOOPBACK, "127.0.0.1")})

    async with (
        silent_server(port=port_of(url)) as silent,
        opened(at(url, "database.test"), size=2) as database,
    ):
        first = await probe_seconds(database)
        async with database.engine.connect():
            second = await probe_seconds(database)

    assert LIMIT <= first < LIMIT + 3
    assert second < LIMIT
    assert silent.accepted == 1


async def test_silent_hosts_of_a_list_cost_a_limit_each(url: str) -> None:
    """The last of four hosts is reached, behind one that does not resolve."""
    hosts = (OTHER_LOOPBACK, "127.0.0.3", "nowhere.invalid", "127.0.0.1")
    port = port_of(url)

    async with (
        silent_server(port=port),
        silent_server("127.0.0.3", port),
        opened(at(url, *hosts)) as database,
    ):
        seconds = await probe_seconds(database)

    assert 2 * LIMIT <= seconds < 3 * LIMIT + 3


async def test_unreachable_hosts_are_named_each_with_its_error(url: str) -> None:
    """The operator reads which of them to check."""
    hosts = (OTHER_LOOPBACK, "127.0.0.4", "nowhere.invalid")

    async with silent_server(port=port_of(url)), opened(at(url, *hosts)) as database:
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.probe()

    port = port_of(url)
    assert str(caught.value) == (
        f"no server of the database can be used: {OTHER_LOOPBACK}:{port}: TimeoutError;"
        f" 127.0.0.4:{port}: ConnectionRefusedError; nowhere.invalid:{port}: gaierror"
    )


async def test_refused_login_ends_the_search(url: str, password: str) -> None:
    """As in libpq: the next server would refuse the login as well, and might lock the role."""
    wrong = at(url, "127.0.0.1", OTHER_LOOPBACK).replace(password, "wrong")

    async with silent_server(port=port_of(url)) as silent, opened(wrong) as database:
        with pytest.raises(DatabaseUnavailableError, match="password is refused"):
            await database.probe()

    assert not silent.accepted


async def test_missing_database_ends_the_search(url: str) -> None:
    """As a refused login does: the next host would cost its whole limit, and lack it as well."""
    missing = urlsplit(at(url, "127.0.0.1", OTHER_LOOPBACK))._replace(path="/nowhere").geturl()

    async with silent_server(port=port_of(url)) as silent, opened(missing) as database:
        with pytest.raises(DatabaseUnavailableError, match="there is no such database"):
            await database.probe()

    assert not silent.accepted


async def test_read_only_server_is_passed_over(url: str, other: PostgresServer) -> None:
    """The next host that can write is used, although the first one answers."""
    name = make_the_same(other, url)
    run_sql(other.superuser_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    async with opened(at(url, f"127.0.0.1:{other.port}", "127.0.0.1")) as database:
        await database.probe()
        port = await setting_of(database, "port")
    async with opened(at(url, f"127.0.0.1:{other.port}")) as database:
        with pytest.raises(DatabaseUnavailableError, match=r"SQLSTATE 25006, it only reads"):
            await database.probe()

    assert port == str(port_of(url))


async def test_probe_leaves_a_server_that_turned_read_only(url: str, other: PostgresServer) -> None:
    """Without a write since then, its session alone would stay open for ever."""
    make_the_same(other, url)
    async with opened(at(url, f"127.0.0.1:{other.port}", "127.0.0.1")) as database:
        assert await setting_of(database, "port") == str(other.port)
        reload(other, "default_transaction_read_only = on")

        async def probed() -> str | None:
            try:
                await database.probe()
            except DatabaseUnavailableError:
                return None
            return await setting_of(database, "port")

        await eventually(probed, lambda port: port == str(port_of(url)))


async def test_parameters_of_the_url_reach_the_server(url: str) -> None:
    """``application_name`` and ``options``, as for `psql`."""
    more = "&application_name=mine&options=-c%20search_path%3Delsewhere"

    async with opened(url + more) as database:
        name = await setting_of(database, "application_name")
        path = await setting_of(database, "search_path")

    assert (name, path) == ("mine", "elsewhere")
