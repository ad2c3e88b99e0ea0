"""The ledger on a real PostgreSQL: each run once, facts that nobody can change."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from nexus_database import Database, DatabaseUnavailableError, RowRefusedError
from rig.events import provisioned, tool_run
from usage_ingest.accounts import Accounts
from usage_ingest.ledger import Duplicate, Entry, IdTaken, Ledger, Recorded
from usage_ingest.metering import BillingRules, BillingState, ToolRun
from usage_ingest.reports import Reports

RULES = BillingRules("tool_call_executed", "tokens_used", frozenset({"succeeded"}))


def entry(event: ToolRun) -> Entry:
    """Assess an event now."""
    return Entry.of(event, RULES, datetime.now(UTC))


async def count(database: Database) -> int:
    """Count the ledger's rows."""
    result = await database.run(lambda c: c.execute(text("SELECT count(*) FROM usage_events")))
    return int(result.scalar_one())


async def test_an_event_told_twice_is_recorded_once(database: Database) -> None:
    """Duplicates within a batch and across batches are recognised as the same fact."""
    ledger, event = Ledger(database), tool_run(metadata={"a": 1})

    first = await ledger.record([entry(event), entry(event)])
    second = await ledger.record([entry(event)])

    assert first == [Recorded(BillingState.WAITING), Duplicate()]
    assert second == [Duplicate()]
    assert await count(database) == 1


async def test_rows_without_a_trace_are_rows_like_others(database: Database) -> None:
    """The release before the column for it inserts none, and goes on beside the next one."""
    values = {"id": uuid4(), "user": uuid4(), "digest": bytes(32), "now": datetime.now(UTC)}
    events = text("""
        INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id,
            tool_name, origin, status, readings, occurred_at, billing_state)
        VALUES (:id, 'hub', 1, :digest, :user, 's', 't', 'hub', 'succeeded', '{"m": 1}', :now,
            'waiting')
    """)
    reports = text("""
        INSERT INTO usage_reports (report_id, identifier, claim_id, user_id, stripe_customer_id,
            generation, meter, value, dimensions, occurred_at, event_count)
        VALUES (:id, 'nexus:old', :id, :user, 'cus_1', 1, 'm', 1, '{}', :now, 1)
    """)

    await database.run(lambda c: c.execute(events, values))
    await database.run(lambda c: c.execute(reports, values))

    [report] = (await Reports(database).lease(datetime.now(UTC))).reports
    assert report.identifier == "nexus:old"
    assert await Reports(database).contexts([report]) == {}


async def test_an_id_with_another_meaning_is_refused_and_names_its_holder(
    database: Database,
) -> None:
    """The first meaning of an id stands; metadata is no part of the meaning."""
    ledger, event = Ledger(database), tool_run(source="first/hub")
    other = tool_run(event.data.user_id, event_id=event.id, source="second/hub")
    same = tool_run(
        event.data.user_id,
        event_id=event.id,
        source="first/hub",
        time=event.time,
        metadata={"noise": True},
    )

    await ledger.record([entry(event)])
    results = await ledger.record([entry(other), entry(same)])

    assert results == [IdTaken("first/hub"), Duplicate()]


async def test_two_consumers_with_the_same_batch_at_once_record_each_event_once(
    database: Database,
) -> None:
    """Concurrent batches with ids in common neither deadlock nor double."""
    ledger = Ledger(database)
    events = [tool_run() for _ in range(200)]

    results = await asyncio.gather(
        ledger.record([entry(each) for each in events]),
        ledger.record([entry(each) for each in reversed(events)]),
        ledger.record([entry(each) for each in events[50:150]]),
    )

    recorded = sum(isinstance(each, Recorded) for batch in results for each in batch)
    assert recorded == 200
    assert await count(database) == 200


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage_events SET token_count = 1",
        "UPDATE usage_events SET digest = digest",
        "DELETE FROM usage_events",
        "TRUNCATE usage_events",
        "UPDATE usage_reports SET value = 1",
        "DELETE FROM usage_reports",
    ],
)
async def test_facts_are_immutable_by_grant(database: Database, statement: str) -> None:
    """The service's own role is refused whatever would change or remove a fact."""
    with pytest.raises(DatabaseUnavailableError, match="42501"):
        await database.run(lambda c: c.execute(text(statement)))


async def test_each_event_starts_in_the_state_its_facts_call_for(database: Database) -> None:
    """Known customer: due; unknown: waiting; failed: not billable; older than 35 days: expired."""
    known = uuid4()
    await Accounts(database).apply(provisioned(known, "cus_1").data)
    old = datetime.now(UTC) - timedelta(days=35, seconds=1)

    results = await Ledger(database).record(
        [
            entry(tool_run(known)),
            entry(tool_run()),
            entry(tool_run(known, status="failed")),
            entry(tool_run(known, time=old)),
        ]
    )

    assert results == [
        Recorded(BillingState.DUE),
        Recorded(BillingState.WAITING),
        Recorded(BillingState.NOT_BILLABLE),
        Recorded(BillingState.EXPIRED),
    ]


async def test_a_row_that_cannot_be_stored_refuses_its_batch_whole(database: Database) -> None:
    """Nothing of a refused batch is in the ledger, and the error quotes no value."""
    bad = tool_run(metadata={"secret\u0000name": 1})

    with pytest.raises(RowRefusedError) as refusal:
        await Ledger(database).record([entry(tool_run()), entry(bad)])

    assert "secret" not in str(refusal.value)
    assert await count(database) == 0
