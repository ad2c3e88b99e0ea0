"""A report's row that no event can carry is set aside and named, and sent once it is corrected."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from structlog.testing import capture_logs

from nexus_contracts import UsageRecorded, read_event
from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from support.commands import in_a_pipe
from support.databases import url_of
from support.vhost import Vhost
from usage_ingest.jobs import Relay
from usage_ingest.metrics import IngestMetrics
from usage_ingest.storage.reports import SET_ASIDE_FOR, Reports

NOW = datetime.now(UTC)

INSERT = text("""
INSERT INTO usage_reports (report_id, identifier, claim_id, user_id, stripe_customer_id,
    generation, meter, value, dimensions, occurred_at, event_count, state, forwarded_at)
VALUES (:id, :identifier, :id, :id, 'cus_1', 1, :meter, 1, '{}', :now, 1, :state, :now)
""")


async def insert(database: Database, meter: str, *, state: str = "pending") -> UUID:
    """Make a report on ``meter``, as if it was forwarded two hours ago."""
    its_id, then = uuid4(), NOW - timedelta(hours=2)
    name = f"nexus:{its_id}"
    values = {"id": its_id, "identifier": name, "meter": meter, "now": then, "state": state}
    await database.run(lambda c: c.execute(INSERT, values))
    return its_id


@pytest.fixture
async def publisher(vhost: Vhost) -> AsyncIterator[Publisher]:
    """Return a publisher with the service's rights."""
    made = await Publisher.connect(vhost.url("usage-ingest"), name="test")
    yield made
    await made.close()


async def test_invalid_report_delays_no_other(
    database: Database, vhost: Vhost, publisher: Publisher
) -> None:
    """It stays pending; the log names it and the broken rule, and it is counted."""
    bad = await insert(database, "runs\x1b[2J")
    good = await insert(database, "runs")
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry, meters=["runs"])
    relay = Relay(Reports(database), publisher, metrics, now=lambda: NOW)

    with capture_logs() as logs:
        assert await relay.forward()
        assert not await relay.forward()

    taken = read_event((await vhost.take(USAGE_RECORDED_QUEUE)).body, [UsageRecorded])
    assert taken.data.report_id == good
    assert await vhost.depth(USAGE_RECORDED_QUEUE) == 0
    [line] = [each for each in logs if each["event"] == "report_set_aside"]
    assert line["report_id"] == str(bad)
    assert line["broken"].startswith("meter: ")
    steps = "usage_ingest_reports_total"
    assert registry.get_sample_value(steps, {"step": "set_aside"}) == 1
    assert registry.get_sample_value(steps, {"step": "forwarded"}) == 1


async def test_report_set_aside_is_tried_again_after_ten_minutes(database: Database) -> None:
    """Once its row is corrected, nothing else has to be done."""
    reports, bad = Reports(database), await insert(database, "x" * 101)

    first = await reports.lease(NOW)
    meanwhile = await reports.lease(NOW + SET_ASIDE_FOR - timedelta(seconds=1))
    still = await reports.lease(NOW + SET_ASIDE_FOR + timedelta(seconds=1))

    assert [each.report_id for each in first.set_aside] == [bad]
    assert (meanwhile.reports, meanwhile.set_aside) == ([], [])
    assert [each.report_id for each in still.set_aside] == [bad]


async def test_replay_names_an_invalid_report_and_sends_the_others(
    database: Database, vhost: Vhost
) -> None:
    """The exit code is 1, because not all reports were sent."""
    bad = await insert(database, "runs\x07", state="forwarded")
    await insert(database, "runs", state="forwarded")
    url = url_of(database)

    shown = await in_a_pipe(
        *("usage_ingest", "replay", "--execute"),
        DATABASE_URL=url,
        AMQP_URL=vhost.url("usage-ingest"),
    )

    assert shown.code == 1
    assert f"report {bad}: meter: " in shown.errors
    assert "1 reports were forwarded again" in shown.raw
    assert "Traceback" not in shown.errors
    assert await vhost.depth(USAGE_RECORDED_QUEUE) == 1
