"""The ledger on a real PostgreSQL: each run once, in rows that never change."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from nexus_contracts import ToolExecuted, read_event
from nexus_database import Database, DatabaseUnavailableError, RowRefusedError, RowsBusyError
from support.events import provisioned, tool_run
from support.waiting import eventually
from usage_ingest.entry import COLUMNS, Entry, digest
from usage_ingest.metering import BillingRules, BillingState, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.ledger import Duplicate, HeldByNewer, IdTaken, Ledger, Recorded
from usage_ingest.storage.reports import Reports

RULES = BillingRules("tool_call_executed", "tokens_used", frozenset({"succeeded"}))


def entry(event: ToolRun) -> Entry:
    """Assess an event now."""
    return Entry.of(event, RULES, datetime.now(UTC))


async def count(database: Database) -> int:
    """Count the ledger's rows."""
    result = await database.run(lambda c: c.execute(text("SELECT count(*) FROM usage_events")))
    return int(result.scalar_one())


async def test_duplicate_event_is_recorded_once(database: Database) -> None:
    """Duplicates are recognised within a batch and across batches."""
    ledger, event = Ledger(database), tool_run(metadata={"a": 1})

    first = await ledger.record([entry(event), entry(event)])
    second = await ledger.record([entry(event)])

    assert first == [Recorded(BillingState.WAITING), Duplicate()]
    assert second == [Duplicate()]
    assert await count(database) == 1


async def test_every_column_of_the_table_is_written(database: Database) -> None:
    """A migration that adds one needs a line in ``COLUMNS``, or a default as these have."""
    filled_otherwise = {"digest_version", "created_at", "claim_id"}
    query = text(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_events'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    )

    columns = set((await database.run(lambda c: c.execute(query))).scalars())

    assert columns == {column.name for column in COLUMNS} | filled_otherwise


async def test_rows_without_a_trace_are_used_like_others(database: Database) -> None:
    """The release before that column inserts none, and runs beside the next one."""
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


async def test_run_is_recorded_without_metadata_that_cannot_be_stored(
    database: Database,
) -> None:
    """The row differs from that of a run without metadata; its repetition is a duplicate."""
    ledger, user = Ledger(database), uuid4()
    beyond = tool_run(user, metadata={"a": "a number"})
    runs = [
        tool_run(user, metadata={"name\u0000": 1}),
        read_event(beyond.body().replace(b'"a number"', b"1e400"), [ToolExecuted]),
        tool_run(user).mark_left_out(),
        tool_run(user, metadata={"a": 1}),
        tool_run(user),
    ]

    first = await ledger.record([entry(each) for each in runs])
    second = await ledger.record([entry(each) for each in runs])

    assert first == [Recorded(BillingState.WAITING)] * 5
    assert second == [Duplicate()] * 5
    query = text("SELECT event_id, metadata, metadata_left_out FROM usage_events")
    rows = {
        row.event_id: (row[1], row[2]) for row in await database.run(lambda c: c.execute(query))
    }
    lacking, kept = (None, True), ({"a": 1}, False)
    assert [rows[each.id] for each in runs] == [lacking, lacking, lacking, kept, (None, False)]


def old_row(event: ToolRun) -> Mapping[str, Any]:
    """Return what the release without versions of the digest inserted for ``event``."""
    run = event.data
    return {
        "event_id": event.id,
        "source": event.source,
        "digest": digest(event, 1),
        "user_id": run.user_id,
        "occurred_at": event.time,
    }


OLD_INSERT = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
    origin, status, readings, occurred_at, billing_state)
VALUES (:event_id, :source, 1, :digest, :user_id, 'weather', 'forecast', 'direct', 'succeeded',
    '{"tool_call_executed": 1}', :occurred_at, 'waiting')
""")


async def test_repetition_is_compared_by_the_stored_version(database: Database) -> None:
    """The versions differ for this time: by the new one it would be another event."""
    event = tool_run(time=datetime(2038, 6, 10, 22, 9, 31, 345_000, tzinfo=UTC))
    other = tool_run(event.data.user_id, event_id=event.id, time=event.time, tool_name="radar")
    assert digest(event, 1) != digest(event)
    await database.run(lambda c: c.execute(OLD_INSERT, old_row(event)))

    results = await Ledger(database).record([entry(event), entry(other)])

    assert results == [Duplicate(), IdTaken(event.source)]


async def test_digest_of_a_later_release_is_not_compared(
    database: Database,
) -> None:
    """The event is neither a duplicate nor another one; that release compares it."""
    event = tool_run()
    insert = text(
        str(OLD_INSERT)
        .replace("billing_state)", "billing_state, digest_version)")
        .replace("'waiting')", "'waiting', 99)")
    )
    await database.run(lambda c: c.execute(insert, old_row(event)))

    assert await Ledger(database).record([entry(event)]) == [HeldByNewer()]


async def test_new_events_have_the_newest_digest(database: Database) -> None:
    """Without its microseconds it is the same event, in any year."""
    event = tool_run(time=datetime(2038, 6, 10, 22, 9, 31, 345_678, tzinfo=UTC))
    whole = event.time.replace(microsecond=345_000)
    again = tool_run(event.data.user_id, event_id=event.id, time=whole)

    await Ledger(database).record([entry(event)])

    assert await Ledger(database).record([entry(again)]) == [Duplicate()]


async def test_id_of_another_event_is_taken_and_names_its_source(
    database: Database,
) -> None:
    """The first event of an id stays; metadata does not make another one."""
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


async def test_concurrent_batches_record_each_event_once(
    database: Database,
) -> None:
    """With ids in common they do not deadlock, either."""
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
        "UPDATE usage_events SET digest_version = 2",
        "DELETE FROM usage_events",
        "TRUNCATE usage_events",
        "UPDATE usage_reports SET value = 1",
        "DELETE FROM usage_reports",
    ],
)
async def test_facts_are_immutable_by_grant(database: Database, statement: str) -> None:
    """The service's role may not change or remove a fact."""
    with pytest.raises(DatabaseUnavailableError, match="42501"):
        await database.run(lambda c: c.execute(text(statement)))


async def test_event_is_recorded_in_the_state_of_its_facts(database: Database) -> None:
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


async def test_row_that_cannot_be_stored_refuses_its_batch(database: Database) -> None:
    """Nothing of the batch is in the ledger, and the error quotes no value."""
    bad = entry(tool_run())._replace(metadata="secret")

    with pytest.raises(RowRefusedError) as refusal:
        await Ledger(database).record([entry(tool_run()), bad])

    assert "secret" not in str(refusal.value)
    assert await count(database) == 0


async def test_first_of_two_events_with_one_id_in_a_batch_stays(database: Database) -> None:
    """The second one is refused as in a later batch, and is no duplicate."""
    event = tool_run(source="first/hub")
    other = tool_run(event.data.user_id, event_id=event.id, source="second/hub")

    results = await Ledger(database).record([entry(event), entry(other)])

    assert results == [Recorded(BillingState.WAITING), IdTaken("first/hub")]


async def test_batches_with_common_ids_wait_in_the_order_of_ids(database: Database) -> None:
    """A batch that waits for a row holds no later one, so the batches can't deadlock."""
    low, high = (tool_run(event_id=UUID(int=number)) for number in (1, 2))
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    async with database.engine.connect() as other:
        await other.execute(OLD_INSERT, old_row(low))
        recording = asyncio.create_task(Ledger(database).record([entry(high), entry(low)]))
        await eventually(lambda: database.run(lambda c: c.scalar(waiting)), bool)
        await other.execute(text("SET LOCAL lock_timeout = '10ms'"))
        await other.execute(OLD_INSERT, old_row(high))
        await other.commit()
        await asyncio.wait({recording})

    assert recording.exception() is None or isinstance(recording.exception(), RowsBusyError)
