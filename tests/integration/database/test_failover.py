"""A failover that reaches a standby for a moment: the services go on by themselves after it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_messaging.topology import EVENTS
from rig.events import tool_run, user_created
from rig.hosts import OTHER_LOOPBACK, mute
from rig.platform import Platform
from rig.waiting import eventually

SERVICES = ("usage_ingest", "stripe_reporter", "customer_provisioner")
REPORTED = "SELECT count(*)::int FROM usage_reports WHERE state = 'reported'"


async def answers(platform: Platform, service: str) -> Mapping[str, str] | None:
    """Return what `/readyz` says is wrong, or nothing."""
    url = f"{platform.services[service.replace('_', '-')].url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        wrong: dict[str, str] = (await answer.json()).get("wrong", {})
        return wrong or None


def read_only(postgres: Server, platform: Platform, state: str) -> None:
    """Have every new session of the services' roles only read (``on``), or write (``off``)."""
    for service in SERVICES:
        name = urlsplit(platform.databases[service]).path[1:]
        run_sql(
            postgres.superuser_url,
            f"ALTER ROLE {service} IN DATABASE {name} SET default_transaction_read_only = {state}",
        )


def end_sessions(postgres: Server, platform: Platform) -> None:
    """End every session of the services, as a failover does."""
    for service in SERVICES:
        name = urlsplit(platform.databases[service]).path[1:]
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname"
        run_sql(postgres.superuser_url, f"{ended} = '{name}'")


async def bill_one_run(platform: Platform) -> None:
    """Publish a new user and a run of theirs."""
    user = uuid4()
    await platform.vhost.publish(user_created(user, "ada@example.com"), exchange=EVENTS)
    await platform.vhost.publish(tool_run(user), exchange=EVENTS)


async def reported(platform: Platform) -> int:
    """Return how many reports Stripe has counted."""
    [[number]] = await platform.rows("usage_ingest", REPORTED)
    return int(str(number))


@pytest.mark.timeout(240)
async def test_services_that_reached_a_standby_go_on_when_it_is_promoted(
    platform: Platform, postgres: Server
) -> None:
    """While it only reads they are not ready and say why; nothing waits for a person."""
    platform.start()
    await bill_one_run(platform)
    await eventually(partial(reported, platform), lambda number: number == 1, within=60)

    read_only(postgres, platform, "on")
    end_sessions(postgres, platform)
    await bill_one_run(platform)
    for service in SERVICES:
        wrong = await eventually(partial(answers, platform, service), bool, within=30)
        assert wrong is not None
        assert "it only reads" in wrong["database"]
    read_only(postgres, platform, "off")

    for service in SERVICES:
        await eventually(partial(answers, platform, service), lambda each: each is None, within=60)
    await eventually(partial(reported, platform), lambda number: number == 2, within=90)
    for service in SERVICES:
        log = platform.log(service.replace("_", "-"))
        assert "database_unavailable" in log
        assert "it only reads" in log


@pytest.mark.timeout(240)
async def test_services_start_behind_a_host_that_is_silent(platform: Platform) -> None:
    """Commands and checks go the same way: the next host of the list is asked in time."""
    [port] = {urlsplit(url).port for url in platform.databases.values()}
    assert port is not None
    listed = {name: _behind(url, OTHER_LOOPBACK) for name, url in platform.databases.items()}
    behind = replace(platform, databases=listed)

    async with mute(port=port):
        behind.start()
        try:
            code, output = await behind.command("usage_ingest", "status", "--json")
            checked, said = await behind.command("stripe_reporter", "check")
        finally:
            behind.stop()

    assert code == 0
    assert '"degraded": false' in output
    assert checked == 0, said


def _behind(url: str, host: str) -> str:
    parts = urlsplit(url)
    login, _, its = parts.netloc.rpartition("@")
    return parts._replace(
        netloc=f"{login}@{host}:{parts.port},{its}", query="connect_timeout=1"
    ).geturl()
