"""usage-ingest as in production, on a real broker: the outcome of each kind of message."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_contracts import (
    Event,
    SubscriptionChanged,
    UsageRecorded,
    UsageReported,
    UserAssigned,
    read_event,
)
from nexus_database import Database
from nexus_messaging.topology import (
    INTERNAL,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
)
from support.events import provisioned, second_version, tool_run
from support.ingest import running_ingest
from support.vhost import Vhost
from support.waiting import eventually

REFUSAL = "ALTER TABLE usage_events ADD CHECK (tool_name <> 'refused')"
"""Makes a row that can't be stored; without it, all that the contract allows can be."""

PAST = datetime.now(UTC) - timedelta(minutes=1)


@pytest.fixture
async def running(vhost: Vhost, database: Database) -> AsyncIterator[Database]:
    """Run usage-ingest; return its database."""
    async with running_ingest(vhost, database):
        yield database


async def recorded(database: Database) -> int:
    """Count the ledger."""
    result = await database.run(lambda c: c.execute(text("SELECT count(*) FROM usage_events")))
    return int(result.scalar_one())


async def reasons(vhost: Vhost, queue: str) -> list[str]:
    """Return the reasons of a queue's dead letters."""
    return sorted(str(letter.headers["nexus-reason"]) for letter in await vhost.dead_letters(queue))


async def test_row_that_cannot_be_stored_is_dead_lettered_alone(
    vhost: Vhost, running: Database, postgres: PostgresServer, password: str
) -> None:
    """Its bytes are unchanged, and all other runs of its batch are recorded."""
    name = str(running.engine.url.database)
    run_sql(postgres.url(name, "usage_ingest_owner", password), REFUSAL)
    bad = tool_run(tool_name="refused")
    good = [tool_run() for _ in range(60)]

    await vhost.publish(*good[:30], bad, *good[30:])

    assert await eventually(lambda: recorded(running), lambda count: count == 60) == 60
    [letter] = await eventually(
        lambda: vhost.dead_letters(TOOL_EXECUTED_QUEUE), lambda letters: len(letters) == 1
    )
    assert letter.headers["nexus-reason"] == "unstorable"
    assert letter.body == bad.body()


async def test_runs_are_recorded_with_any_metadata(vhost: Vhost, running: Database) -> None:
    """Nothing is dead-lettered for it."""
    bodies = [
        tool_run(metadata={"a": "@@"}).body().replace(b'"@@"', written)
        for written in (b"1e400", rb'"\u0000"', rb'"\ud800"', b"9" * 5000, b"[" * 900 + b"]" * 900)
    ]

    for body in bodies:
        await vhost.publish_raw(body, "tool.executed.v1")

    await eventually(lambda: recorded(running), lambda count: count == len(bodies))
    assert await vhost.dead_letters(TOOL_EXECUTED_QUEUE) == []


async def test_permanent_errors_are_dead_lettered_with_a_reason(
    vhost: Vhost, running: Database
) -> None:
    """Unreadable, another version, invalid, a taken id, a time in the future."""
    event = tool_run(source="first/hub")
    await vhost.publish(event)
    await eventually(lambda: recorded(running), lambda count: count == 1)

    await vhost.publish_raw(b"{", "tool.executed.v1")
    await vhost.publish_raw(
        event.body().replace(b"executed.v1", b"executed.v9"), "tool.executed.v9"
    )
    await vhost.publish_raw(event.body().replace(b"user_id", b"userid"), "tool.executed.v1")
    await vhost.publish(
        tool_run(event_id=event.id), tool_run(time=datetime.now(UTC) + timedelta(minutes=6))
    )

    found = await eventually(
        lambda: reasons(vhost, TOOL_EXECUTED_QUEUE), lambda reasons: len(reasons) == 5
    )
    assert found == [
        "event_id_taken",
        "invalid",
        "timestamp_in_future",
        "unreadable",
        "unsupported_version",
    ]
    assert await recorded(running) == 1


async def test_versions_of_a_run_come_from_the_same_queue(vhost: Vhost, running: Database) -> None:
    """Version 2 adds its details to a run of version 1; other details are a dead letter."""
    run = tool_run()

    for each in (
        run,
        second_version(run, model="large"),
        second_version(run, model="small"),
        second_version(tool_run()),
    ):
        await vhost.publish(each)

    [letter] = await eventually(
        lambda: vhost.dead_letters(TOOL_EXECUTED_QUEUE), lambda letters: len(letters) == 1
    )
    assert letter.headers["nexus-reason"] == "event_id_taken"
    assert letter.headers["nexus-error"] == (
        "PermanentError: data: the run was recorded with another model or other tokens by kind"
    )
    assert await eventually(lambda: recorded(running), lambda count: count == 2) == 2
    query = text("SELECT model FROM usage_details ORDER BY model")
    assert [*(await running.run(lambda c: c.execute(query))).scalars()] == ["large", None]


async def test_due_events_become_a_report_and_its_answer_is_applied(
    vhost: Vhost, running: Database
) -> None:
    """From the customer to the report and its answer, each by its own message."""
    user = uuid4()
    await vhost.publish(tool_run(user, time=PAST), tool_run(user, time=PAST))
    await eventually(lambda: recorded(running), lambda count: count == 2)
    await vhost.publish(provisioned(user, "cus_1"), exchange=INTERNAL)

    message = await vhost.take(USAGE_RECORDED_QUEUE)
    report = read_event(message.body, [UsageRecorded]).data
    answer = UsageReported(
        report_id=report.report_id,
        identifier=report.identifier,
        at=datetime.now(UTC),
        ever_unknown=False,
    )
    await vhost.publish(
        Event.of(answer, source="test/reporter", id=uuid4(), time=answer.at), exchange=INTERNAL
    )

    async def states() -> list[str]:
        query = text("SELECT state FROM usage_reports")
        return list((await running.run(lambda c: c.execute(query))).scalars())

    assert (report.value, report.event_count, report.stripe_customer_id) == (2, 2, "cus_1")
    assert await eventually(states, lambda found: found == ["reported"])


async def test_answer_to_an_unknown_report_is_dead_lettered(
    vhost: Vhost, running: Database
) -> None:
    """After a restore of the database such answers must not be lost."""
    assert await recorded(running) == 0
    answer = UsageReported(
        report_id=uuid4(), identifier="nexus:x", at=datetime.now(UTC), ever_unknown=False
    )

    await vhost.publish(
        Event.of(answer, source="test/reporter", id=uuid4(), time=answer.at), exchange=INTERNAL
    )

    found = await eventually(lambda: reasons(vhost, USAGE_OUTCOMES_QUEUE), bool)
    assert found == ["unknown_report"]


async def test_database_outage_pauses_recording_and_spends_no_budget(
    vhost: Vhost, running: Database, postgres: PostgresServer
) -> None:
    """Runs that are published in it are recorded later, and none is dead-lettered."""
    await vhost.publish(tool_run())
    await eventually(lambda: recorded(running), lambda count: count == 1)
    postgres.kill()
    await vhost.publish(*(tool_run() for _ in range(50)))
    await eventually(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), lambda depth: depth == 50, within=30)

    postgres.restart()

    async def counted() -> int:
        try:
            return await recorded(running)
        except Exception:  # noqa: BLE001 - the database is only just back
            return -1

    assert await eventually(counted, lambda count: count == 51, within=40) == 51
    assert await vhost.dead_letters(TOOL_EXECUTED_QUEUE) == []


async def test_repetition_for_a_later_release_is_retried(
    vhost: Vhost, running: Database, postgres: PostgresServer, password: str
) -> None:
    """It is neither acked nor dead-lettered, and waits longer each time."""
    name, event = str(running.engine.url.database), tool_run()
    await vhost.publish(event)
    await eventually(lambda: recorded(running), lambda count: count == 1)
    owner = postgres.url(name, "usage_ingest_owner", password)
    run_sql(owner, "UPDATE usage_events SET digest_version = 99")
    await vhost.publish(event)

    longest = TIERS[-1].name
    await eventually(lambda: vhost.depth(longest), lambda depth: depth == 1, within=40)
    assert await vhost.dead_letters(TOOL_EXECUTED_QUEUE) == []


async def test_assignment_and_subscription_decide_about_usage(
    vhost: Vhost, running: Database
) -> None:
    """Both come from customer-provisioner; the run's report is to the team's customer."""
    user, team = uuid4(), uuid4()
    since = PAST - timedelta(hours=1)
    assigned = UserAssigned(user_id=user, account_id=team, since=since, revision=1)
    changed = SubscriptionChanged(
        subscription_id="sub_1",
        account_id=team,
        stripe_customer_id="cus_team",
        revision=1,
        plan_type="team",
        status="active",
        items=[],
        plan_since=since,
        as_of=since,
    )
    events = [
        Event.of(each, source="customer-provisioner", id=uuid4(), time=PAST)
        for each in (assigned, changed)
    ]

    await vhost.publish(
        provisioned(user, "cus_user"), provisioned(team, "cus_team"), *events, exchange=INTERNAL
    )
    await eventually(lambda: count(running, "account_assignments"), (1).__eq__)
    await eventually(lambda: count(running, "account_plans"), (1).__eq__)
    await eventually(lambda: count(running, "billing_accounts"), (2).__eq__)
    await vhost.publish(tool_run(user, time=PAST))

    message = await vhost.take(USAGE_RECORDED_QUEUE)
    report = read_event(message.body, [UsageRecorded])
    assert report.data.stripe_customer_id == "cus_team"


async def count(database: Database, table: str) -> int:
    """Count the rows of a table."""
    query = text(f"SELECT count(*) FROM {table}")  # noqa: S608 - of this test
    return int((await database.run(lambda c: c.execute(query))).scalar_one())
