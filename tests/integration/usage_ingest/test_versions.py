"""Versions of a tool run on a real PostgreSQL, in all orders and batches: as the table says."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations, pairwise, permutations, product
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from model.versions import Outcome, Run, arrive_in_turn
from nexus_contracts import ToolExecutedV1, ToolExecutedV2
from nexus_database import Database, RowsBusyError
from support.events import tool_run
from support.waiting import eventually
from usage_ingest.entry import DETAILS, Entry, digest
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.ledger import (
    DetailsAdded,
    DetailsTaken,
    Duplicate,
    HeldByNewer,
    IdTaken,
    Ledger,
    Recorded,
    Result,
)

RULES = BillingRules("tool_call_executed", "tokens_used", frozenset({"succeeded"}))
NOW = datetime.now(UTC)
USER = UUID(int=7)

MESSAGES: Final = (
    Run("500 tokens"),
    Run("500 tokens", "large"),
    Run("500 tokens", "small"),
    Run("500 tokens", "unknown"),
    Run("unknown"),
    Run("unknown", "large"),
)
"""Messages with one id: of either version, of two runs, with details that differ or are null."""

MEANINGS: Final[dict[str, int | None]] = {"500 tokens": 500, "unknown": None}
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "large": {"model": "large", "input_tokens": 400, "output_tokens": 100},
    "small": {"model": "small", "input_tokens": 400, "output_tokens": 100},
    "unknown": {},
}

Cases = dict[UUID, Sequence[Run]]


def event_of(event_id: UUID, message: Run) -> ToolRun:
    """Return the event that ``message`` stands for."""
    kind = ToolExecutedV1 if message.details is None else ToolExecutedV2
    details = FIELDS.get(message.details or "", {})
    tokens = MEANINGS[message.meaning]
    return tool_run(USER, event_id=event_id, time=NOW, kind=kind, token_count=tokens, **details)


def entry(event_id: UUID, message: Run) -> Entry:
    """Assess the event that ``message`` stands for."""
    return Entry.of(event_of(event_id, message), RULES, NOW)


def outcome(result: Result) -> Outcome:
    """Return the table's word for a result."""
    match result:
        case Recorded():
            return Outcome.RECORDED
        case DetailsAdded():
            return Outcome.DETAILS_ADDED
        case Duplicate():
            return Outcome.DUPLICATE
        case IdTaken() | DetailsTaken():
            return Outcome.TAKEN
        case HeldByNewer():
            raise AssertionError("nothing here is of a later release")


def cases(length: int) -> Cases:
    """Return each sequence of messages of that length, with an id of its own."""
    return {uuid4(): each for each in product(MESSAGES, repeat=length)}


def batchings(length: int) -> Iterator[Sequence[slice]]:
    """Yield each way to cut a sequence into batches."""
    for number in range(length):
        for cuts in combinations(range(1, length), number):
            yield [slice(*bounds) for bounds in pairwise((0, *cuts, length))]


async def stored(database: Database) -> dict[UUID, Run]:
    """Return what the ledger has of each id, in the table's words."""
    query = text("""
        SELECT e.event_id, e.token_count, d.event_id IS NOT NULL AS detailed, d.model
          FROM usage_events e LEFT JOIN usage_details d USING (event_id)
    """)
    names = {tokens: meaning for meaning, tokens in MEANINGS.items()}
    return {
        row.event_id: Run(
            names[row.token_count], (row.model or "unknown") if row.detailed else None
        )
        for row in await database.run(lambda c: c.execute(query))
    }


async def record(ledger: Ledger, of: Cases, batch: slice) -> dict[UUID, list[Outcome]]:
    """Record the messages ``batch`` of each case in one batch, those of different cases mixed."""
    sent = [(event_id, messages[batch]) for event_id, messages in of.items()]
    turns = range(len(sent[0][1]))
    entries = [entry(event_id, messages[turn]) for turn in turns for event_id, messages in sent]

    results = await ledger.record(entries)

    outcomes: dict[UUID, list[Outcome]] = {event_id: [] for event_id, _ in sent}
    for each, result in zip(entries, results, strict=True):
        outcomes[each.event.id].append(outcome(result))
    return outcomes


@pytest.mark.parametrize(
    "length", [3, pytest.param(4, marks=[pytest.mark.long, pytest.mark.timeout(300)])]
)
async def test_every_order_in_every_batching_ends_as_the_table_says(
    database: Database, length: int
) -> None:
    """Messages of one id in one batch end as if each came by itself."""
    ledger = Ledger(database)
    expected: dict[UUID, Run | None] = {}
    for batching in batchings(length):
        of = cases(length)
        outcomes: dict[UUID, list[Outcome]] = {event_id: [] for event_id in of}
        for batch in batching:
            for event_id, found in (await record(ledger, of, batch)).items():
                outcomes[event_id] += found

        in_turn = {event_id: arrive_in_turn(messages) for event_id, messages in of.items()}
        assert outcomes == {event_id: each[0] for event_id, each in in_turn.items()}
        expected |= {event_id: each[1] for event_id, each in in_turn.items()}

    assert await stored(database) == expected


async def test_redelivered_batch_changes_nothing(database: Database) -> None:
    """After a crash between commit and ack: what was accepted is a duplicate, in any order."""
    ledger, of = Ledger(database), cases(3)
    first = await record(ledger, of, slice(0, 3))
    before = await stored(database)

    reverse = {event_id: messages[::-1] for event_id, messages in of.items()}
    again = await record(ledger, reverse, slice(0, 3))

    refused = {
        event_id: [Outcome.TAKEN if each is Outcome.TAKEN else Outcome.DUPLICATE for each in found]
        for event_id, found in first.items()
    }
    assert {event_id: found[::-1] for event_id, found in again.items()} == refused
    assert await stored(database) == before


async def test_concurrent_recorders_end_as_in_some_order(database: Database) -> None:
    """Each of three processes has one message of each id, in small batches of its own order."""
    ledger, of = Ledger(database), cases(3)
    found: dict[UUID, list[Outcome]] = {event_id: [Outcome.TAKEN] * 3 for event_id in of}

    async def recorder(place: int) -> None:
        ids = list(of)
        random.Random(place).shuffle(ids)  # noqa: S311 - repeatable, not secret
        for at in range(0, len(ids), 12):
            batch = {event_id: of[event_id] for event_id in ids[at : at + 12]}
            for event_id, [each] in (await record(ledger, batch, slice(place, place + 1))).items():
                found[event_id][place] = each

    await asyncio.gather(*map(recorder, range(3)))

    final = await stored(database)
    for event_id, messages in of.items():
        orders = []
        for order in permutations(range(3)):
            outcomes, stored_then = arrive_in_turn(messages[place] for place in order)
            orders.append(([outcomes[order.index(place)] for place in range(3)], stored_then))
        assert (found[event_id], final[event_id]) in orders


async def rows(database: Database) -> list[dict[str, Any]]:
    """Return all rows of the ledger, with the transactions that wrote them."""
    query = text("SELECT xmin::text, * FROM usage_events ORDER BY event_id")
    return [dict(row) for row in (await database.run(lambda c: c.execute(query))).mappings()]


async def test_details_that_come_later_change_no_row_of_the_ledger(database: Database) -> None:
    """What was read of the run is billed, and the run's row is never written again."""
    ledger, event_id = Ledger(database), uuid4()
    await ledger.record([entry(event_id, Run("500 tokens"))])
    before = await rows(database)

    assert await ledger.record([entry(event_id, Run("500 tokens", "large"))]) == [DetailsAdded()]

    assert await rows(database) == before
    assert before[0]["readings"] == {"tool_call_executed": 1, "tokens_used": 500}
    view = text("SELECT token_count, model, input_tokens, cached_tokens FROM billing_usage_events")
    assert [*await database.run(lambda c: c.execute(view))] == [(500, "large", 400, None)]


STORED_RUN = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, digest_version, user_id,
    server_id, tool_name, origin, status, readings, occurred_at, billing_state)
VALUES (:event_id, 'hub', 1, :digest, :digest_version, :user_id, 's', 't', 'hub', 'succeeded',
    '{"m": 1}', now(), 'waiting')
""")

LATER_DETAILS = text("""
INSERT INTO usage_details (event_id, digest, digest_version) VALUES (:event_id, :digest, 99)
""")


async def test_run_that_the_previous_release_recorded_gets_its_details(database: Database) -> None:
    """It is compared by the first version of the digest, which that release has."""
    ledger, event_id = Ledger(database), uuid4()
    known = event_of(event_id, Run("unknown"))
    row = {"event_id": event_id, "digest": digest(known, 1), "digest_version": 1, "user_id": USER}
    await database.run(lambda c: c.execute(STORED_RUN, row))

    messages = (Run("500 tokens", "small"), Run("unknown", "large"), Run("unknown"))
    results = await ledger.record([entry(event_id, each) for each in messages])

    assert results == [IdTaken("hub"), DetailsAdded(), Duplicate()]


async def test_what_a_later_release_can_compare_is_left_to_it(database: Database) -> None:
    """A run, or details, with a digest of a later version; no details come to such a run."""
    ledger = Ledger(database)
    run, detailed = uuid4(), uuid4()
    later = {"event_id": run, "digest": bytes(32), "digest_version": 99, "user_id": USER}
    await database.run(lambda c: c.execute(STORED_RUN, later))
    await ledger.record([entry(detailed, Run("unknown"))])
    await database.run(lambda c: c.execute(LATER_DETAILS, later | {"event_id": detailed}))

    arriving = [entry(each, Run("unknown", "large")) for each in (run, detailed)]

    assert await ledger.record(arriving) == [HeldByNewer(), HeldByNewer()]
    query = text("SELECT event_id FROM usage_details")
    assert [*(await database.run(lambda c: c.execute(query))).scalars()] == [detailed]


async def test_batches_with_common_details_wait_in_the_order_of_ids(database: Database) -> None:
    """A batch that waits for details holds no later ones, so the batches can't deadlock."""
    ledger, (low, high) = Ledger(database), (UUID(int=1), UUID(int=2))
    await ledger.record([entry(each, Run("unknown")) for each in (low, high)])
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    details = [{"event_id": each, "digest": bytes(32)} for each in (low, high)]

    async with database.engine.connect() as other:
        await other.execute(LATER_DETAILS, details[0])
        batch = [entry(each, Run("unknown", "large")) for each in (high, low)]
        recording = asyncio.create_task(ledger.record(batch))
        await eventually(lambda: database.run(lambda c: c.scalar(waiting)), bool)
        await other.execute(text("SET LOCAL lock_timeout = '10ms'"))
        await other.execute(LATER_DETAILS, details[1])
        await other.commit()
        await asyncio.wait({recording})

    assert recording.exception() is None or isinstance(recording.exception(), RowsBusyError)


async def test_every_column_of_the_details_is_written(database: Database) -> None:
    """A migration that adds one needs a line in ``DETAILS``, or a default as these have."""
    query = text(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_details'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    )

    columns = set((await database.run(lambda c: c.execute(query))).scalars())

    assert columns == {column.name for column in DETAILS} | {"digest_version", "created_at"}


@pytest.mark.parametrize("size", [1, 400])
@pytest.mark.parametrize(
    ("messages", "new", "again"),
    [
        ([Run("unknown")], 1, 3),
        ([Run("unknown", "large")], 2, 6),
        ([Run("unknown"), Run("unknown", "large"), Run("500 tokens", "small")], 2, 6),
    ],
    ids=["version 1", "version 2", "both and another run"],
)
async def test_batch_takes_a_fixed_number_of_statements(
    database: Database, messages: Sequence[Run], size: int, new: int, again: int
) -> None:
    """Version 1 alone takes one, as before there were details; the size does not matter."""
    executed: list[str] = []
    sqlalchemy_event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda *arguments: executed.append(arguments[2]),
    )
    batch = [
        entry(event_id, each) for event_id in [uuid4() for _ in range(size)] for each in messages
    ]

    await Ledger(database).record(batch)
    first = len(executed)
    await Ledger(database).record(batch)

    assert (first, len(executed) - first) == (new, again)
