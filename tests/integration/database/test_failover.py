"""A failover in which services reach a standby: they work again once it is promoted."""

from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_messaging.topology import EVENTS
from support.databases import MODULES
from support.events import tool_run, user_created
from support.hosts import OTHER_LOOPBACK, silent_server
from support.platform import Platform
from support.waiting import eventually

REPORTED = "SELECT count(*)::int FROM usage_reports WHERE state = 'reported'"


async def failed_checks(platform: Platform, service: str) -> dict[str, str]:
    """Return the failed checks of a service's `/readyz`."""
    report = await platform.readiness(service.replace("_", "-"))
    failed: dict[str, str] = report.get("wrong", {})
    return failed


def read_only(postgres: Server, platform: Platform, state: str) -> None:
    """Make every new session of the services' roles read-only (``on``), or not (``off``)."""
    for service in MODULES:
        name = urlsplit(platform.databases[service]).path[1:]
        run_sql(
            postgres.superuser_url,
            f"ALTER ROLE {service} IN DATABASE {name} SET default_transaction_read_only = {state}",
        )


def end_sessions(postgres: Server, platform: Platform) -> None:
    """End every session of the services, as a failover does."""
    for service in MODULES:
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
    return await platform.number("usage_ingest", REPORTED)


@pytest.mark.timeout(240)
async def test_services_on_a_standby_recover_when_it_is_promoted(
    platform: Platform, postgres: Server
) -> None:
    """While it is read-only they are unready and name the cause; no operator is needed."""
    platform.start()
    await bill_one_run(platform)
    await eventually(partial(reported, platform), lambda number: number == 1, within=60)

    read_only(postgres, platform, "on")
    end_sessions(postgres, platform)
    await bill_one_run(platform)
    for service in MODULES:
        failed = await eventually(partial(failed_checks, platform, service), bool, within=30)
        assert "it only reads" in failed["database"]
    read_only(postgres, platform, "off")

    for service in MODULES:
        await eventually(
            partial(failed_checks, platform, service), lambda failed: not failed, within=60
        )
    await eventually(partial(reported, platform), lambda number: number == 2, within=90)
    for service in MODULES:
        log = platform.log(service.replace("_", "-"))
        assert "database_unavailable" in log
        assert "it only reads" in log


@pytest.mark.timeout(240)
async def test_services_start_with_a_silent_host_in_the_url(platform: Platform) -> None:
    """Services, commands and checks reach the next host of the list in time."""
    [port] = {urlsplit(url).port for url in platform.databases.values()}
    assert port is not None
    listed = {name: _behind(url, OTHER_LOOPBACK) for name, url in platform.databases.items()}
    behind = replace(platform, databases=listed)

    async with silent_server(port=port):
        behind.start()
        try:
            code, output = await behind.command("usage_ingest", "status", "--json")
            checked, findings = await behind.command("stripe_reporter", "check")
        finally:
            behind.stop()

    assert code == 0
    assert '"degraded": false' in output
    assert checked == 0, findings


def _behind(url: str, host: str) -> str:
    parts = urlsplit(url)
    login, _, its = parts.netloc.rpartition("@")
    return parts._replace(
        netloc=f"{login}@{host}:{parts.port},{its}", query="connect_timeout=1"
    ).geturl()
