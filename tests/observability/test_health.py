"""What `/healthz` and `/readyz` answer, each made to by its cause: a process that looks alive."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from nexus_contracts import Event, UserCreated
from nexus_database import Database
from nexus_service.progress import STALLED_AFTER
from support.databases import url_of
from support.events import provisioned, tool_run
from support.memory import MAX_WHEN_IDLE, resident_mib
from support.platform import Platform
from support.waiting import eventually

INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"


@dataclass(frozen=True)
class Answer:
    """What a check answered: whether all is well, what is wrong, and what it remarks."""

    well: bool
    wrong: Mapping[str, str]
    remarks: Mapping[str, str]


async def ask(platform: Platform, service: str, path: str) -> Answer:
    """Ask a service's check."""
    url = f"{platform.services[service].url}/{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.json()
        return Answer(response.ok, body.get("wrong", {}), body.get("remarks", {}))


async def ready(platform: Platform, service: str, *, well: bool) -> Answer:
    """Wait until a service's readiness is as expected."""
    return await eventually(
        partial(ask, platform, service, "readyz"), lambda answer: answer.well is well, within=60
    )


async def metric(platform: Platform, service: str, name: str, **labels: str) -> float:
    """Read one number of a service's metrics."""
    url = f"{platform.services[service].url}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        families = text_string_to_metric_families(await response.text())
    return next(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    )


async def stands_still_since_a_minute(platform: Platform) -> None:
    """Wait until the claim loop has not moved for as long as makes it unhealthy."""
    await eventually(
        lambda: metric(platform, INGEST, "usage_ingest_work_still_seconds", work="claim"),
        lambda seconds: seconds > STALLED_AFTER,
        within=150,
        every=1,
    )


def owner(platform: Platform, service: str, password: str) -> Database:
    """Return a service's database as its owner, who may lock and change everything."""
    database = Database(platform.databases[service], name="test")
    url = url_of(database, username=f"{service}_owner", password=password)
    return Database(url, name="test owner")


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_stalled_loop_makes_the_service_unhealthy_until_it_continues(
    platform: Platform, password: str
) -> None:
    """With a lock on the ledger the database still answers: ready, but not healthy."""
    platform.start(INGEST)
    assert (await ask(platform, INGEST, "healthz")).well
    database = owner(platform, "usage_ingest", password)

    async with database.engine.begin() as connection:
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await connection.execute(text("LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE"))
        await stands_still_since_a_minute(platform)
        unwell = await ask(platform, INGEST, "healthz")
        still_ready = await ask(platform, INGEST, "readyz")

    assert "claim for" in unwell.wrong["progress"]
    assert not unwell.well
    assert still_ready.well
    await eventually(lambda: ask(platform, INGEST, "healthz"), lambda answer: answer.well)
    await database.close()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_unreachable_database_makes_services_unready_and_not_unhealthy(
    platform: Platform, postgres: PostgresServer
) -> None:
    """A restart would not help, so the liveness probe succeeds, however long it lasts."""
    platform.start()
    postgres.kill()
    try:
        for service in platform.services:
            unready = await ready(platform, service, well=False)
            assert "database" in unready.wrong
        await stands_still_since_a_minute(platform)
        for service in platform.services:
            assert (await ask(platform, service, "healthz")).well
    finally:
        postgres.restart()

    for service in platform.services:
        await ready(platform, service, well=True)


async def test_unreachable_broker_makes_services_unready_and_not_unhealthy(
    platform: Platform, broker: Broker
) -> None:
    """Each reports it, and becomes ready again by itself; until then it was idle, and small."""
    platform.start()
    assert max(map(resident_mib, platform.services.values())) < MAX_WHEN_IDLE
    broker.kill()
    try:
        for service in platform.services:
            unready = await ready(platform, service, well=False)
            assert "broker" in unready.wrong
            assert (await ask(platform, service, "healthz")).well
    finally:
        broker.restart()

    for service in platform.services:
        await ready(platform, service, well=True)


async def test_database_at_another_revision_makes_a_service_unready(
    platform: Platform, password: str
) -> None:
    """For example after a migration of a later release."""
    platform.start()

    for service in platform.services:
        database = owner(platform, service.replace("-", "_"), password)
        await database.run(
            lambda connection: connection.execute(
                text("UPDATE alembic_version SET version_num = 'another'")
            )
        )
        await database.close()

        unready = await ask(platform, service, "readyz")
        assert "database" in unready.wrong
        assert (await ask(platform, service, "healthz")).well


async def test_stripe_is_part_of_neither_probe(platform: Platform) -> None:
    """With a revoked key both services that call Stripe wait, report why, and stay healthy."""
    platform.start()
    user, newcomer = uuid4(), uuid4()
    await platform.vhost.publish(provisioned(user, "cus_1"), exchange="internal")
    async with platform.stripe() as stripe:
        await stripe.set_key(platform.stripe_key, "revoked")
    data = UserCreated(user_id=newcomer, email="ada@example.com")
    now = datetime.now(UTC)

    await platform.vhost.publish(
        tool_run(user, time=now - timedelta(seconds=30)),
        Event.of(data, source="test/accounts", id=newcomer, time=now),
    )

    for service, name, labels in (
        (REPORTER, "stripe_reporter_circuit_open", {"cause": "key"}),
        (PROVISIONER, "customer_provisioner_stripe_calls_total", {"answer": "unauthorized"}),
    ):
        await eventually(
            partial(metric, platform, service, name, **labels), lambda value: value >= 1
        )
        assert (await ask(platform, service, "healthz")).well
        assert (await ask(platform, service, "readyz")).well
    assert "key" in (await ask(platform, REPORTER, "readyz")).remarks["stripe"]


async def test_paused_reporting_is_remarked_and_healthy(
    platform: Platform,
) -> None:
    """Usage is recorded and becomes due; no report is created until the pause ends."""
    platform.settings["REPORTING_PAUSED"] = "1"
    platform.start(INGEST)
    user, past = uuid4(), datetime.now(UTC) - timedelta(seconds=30)
    await platform.vhost.publish(provisioned(user, "cus_1"), exchange="internal")
    due = "SELECT count(*)::int FROM usage_events WHERE billing_state = 'due'"
    for number in (1, 2, 3):  # each would wake the claim of those before
        await platform.vhost.publish(tool_run(user, time=past))
        await eventually(partial(platform.rows, "usage_ingest", due), [(number,)].__eq__)
    reports = "SELECT sum(event_count)::int, max(state) FROM usage_reports"

    assert await platform.rows("usage_ingest", reports) == [(None, None)]
    assert await metric(platform, INGEST, "usage_ingest_reporting_paused") == 1
    assert "REPORTING_PAUSED" in (await ready(platform, INGEST, well=True)).remarks["reporting"]
    assert (await ask(platform, INGEST, "healthz")).well
    assert "reporting_paused" in platform.log(INGEST)
    del platform.settings["REPORTING_PAUSED"]
    platform.relaunch(INGEST)
    await eventually(
        partial(platform.rows, "usage_ingest", reports), [(3, "forwarded")].__eq__, within=60
    )
    assert await metric(platform, INGEST, "usage_ingest_reporting_paused") == 0
