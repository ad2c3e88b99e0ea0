"""From due events to reports, on a real PostgreSQL: every event in exactly one claim."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from nexus_contracts.fields import MAX_TOKENS
from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claimed, Claims
from usage_ingest.storage.ledger import Ledger

RULES = BillingRules("tool_call_executed", "tokens_used", frozenset({"succeeded"}))
MINUTE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = MINUTE + timedelta(minutes=2)


async def rows(database: Database, query: str) -> Sequence[Row[Any]]:
    """Run a query and return its rows."""
    return (await database.run(lambda c: c.execute(text(query)))).all()


async def record(database: Database, *events: ToolRun) -> None:
    """Record events as if they had just happened."""
    await Ledger(database).record([Entry.of(each, RULES, MINUTE) for each in events])


@pytest.fixture
async def user(database: Database) -> UUID:
    """Return a user whose customer is known."""
    user_id = uuid4()
    await Accounts(database).apply(provisioned(user_id, "cus_known").data)
    return user_id


def claims(database: Database, seconds: int = 10, *dimensions: str) -> Claims:
    """Return claims with windows of ``seconds``."""
    return Claims(database, window=timedelta(seconds=seconds), dimensions=dimensions)


async def test_window_becomes_one_report_per_customer_and_meter(
    database: Database, user: UUID
) -> None:
    """Runs and tokens of a window are summed separately, at the time of the earliest run."""
    await record(
        database,
        tool_run(user, time=MINUTE + timedelta(seconds=3), token_count=7),
        tool_run(user, time=MINUTE + timedelta(seconds=1), token_count=5),
        tool_run(user, time=MINUTE + timedelta(seconds=9)),
        tool_run(user, time=MINUTE + timedelta(seconds=10)),
    )

    claimed = await claims(database).claim(LATER)

    assert claimed == Claimed(events=4, reports=3)
    reports = await rows(
        database,
        "SELECT meter, value, event_count, occurred_at, stripe_customer_id FROM usage_reports"
        " ORDER BY occurred_at, meter",
    )
    first, second = MINUTE + timedelta(seconds=1), MINUTE + timedelta(seconds=10)
    assert [tuple(row) for row in reports] == [
        ("tokens_used", 12, 2, first, "cus_known"),
        ("tool_call_executed", 3, 3, first, "cus_known"),
        ("tool_call_executed", 1, 1, second, "cus_known"),
    ]


async def test_open_window_is_not_claimed(database: Database, user: UUID) -> None:
    """Further events may come until it closes."""
    await record(database, tool_run(user, time=MINUTE + timedelta(seconds=3)))

    early = await claims(database).claim(MINUTE + timedelta(seconds=10))
    late = await claims(database).claim(MINUTE + timedelta(seconds=12))

    assert (early.events, late.events) == (0, 1)


async def test_late_event_makes_a_further_report_of_its_window(
    database: Database, user: UUID
) -> None:
    """A committed report never changes; a window may have several."""
    await record(database, tool_run(user, time=MINUTE))
    await claims(database).claim(LATER)
    before = await rows(database, "SELECT * FROM usage_reports")

    await record(database, tool_run(user, time=MINUTE + timedelta(seconds=1)))
    await claims(database).claim(LATER)

    after = await rows(database, "SELECT * FROM usage_reports ORDER BY created_at")
    assert after[:1] == before
    assert len(after) == 2


async def test_without_windows_every_event_has_its_own_report(
    database: Database, user: UUID
) -> None:
    """This is a window length of zero."""
    await record(database, *(tool_run(user, time=MINUTE) for _ in range(3)))

    assert await claims(database, 0).claim(MINUTE) == Claimed(events=3, reports=3)


async def test_dimensions_split_reports_and_are_stored_with_them(
    database: Database, user: UUID
) -> None:
    """Runs of different tools have different reports if the meter has that dimension."""
    await record(
        database,
        tool_run(user, time=MINUTE, tool_name="radar"),
        tool_run(user, time=MINUTE, tool_name="forecast"),
        tool_run(user, time=MINUTE, tool_name="forecast"),
    )

    await claims(database, 10, "tool_name").claim(LATER)

    reports = await rows(database, "SELECT dimensions, value FROM usage_reports ORDER BY value")
    assert [tuple(row) for row in reports] == [
        ({"tool_name": "radar"}, 1),
        ({"tool_name": "forecast"}, 2),
    ]


async def test_concurrent_claims_count_each_event_once(database: Database, user: UUID) -> None:
    """The sums of the reports are the sums of the events."""
    await record(database, *(tool_run(user, time=MINUTE, token_count=3) for _ in range(400)))

    claimed = await asyncio.gather(*(claims(database).claim(LATER, most=130) for _ in range(6)))
    claimed.append(await claims(database).claim(LATER))

    assert sum(each.events for each in claimed) == 400
    sums = await rows(database, "SELECT meter, sum(value) FROM usage_reports GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in sums] == [("tokens_used", 1200), ("tool_call_executed", 400)]


async def test_events_and_reports_of_each_claim_have_one_sum(
    database: Database, user: UUID
) -> None:
    """Every claimed event leads to its reports, and every report to its events."""
    await record(
        database,
        *(tool_run(user, time=MINUTE + timedelta(seconds=n), token_count=n) for n in range(60)),
    )
    await claims(database).claim(LATER)

    differing = await rows(
        database,
        """
        SELECT r.claim_id FROM usage_reports r
         WHERE r.value <> (SELECT sum((e.readings ->> r.meter)::bigint) FROM usage_events e
                            WHERE e.claim_id = r.claim_id)
        """,
    )
    assert differing == []


async def test_run_at_the_end_of_a_window_belongs_to_the_next(
    database: Database, user: UUID
) -> None:
    """If it was claimed with the earlier window, its own would be reported twice."""
    await record(database, tool_run(user, time=MINUTE + timedelta(seconds=10)))

    early = await claims(database).claim(MINUTE + timedelta(seconds=15))
    late = await claims(database).claim(MINUTE + timedelta(seconds=21))

    assert (early.events, late.events) == (0, 1)


async def test_runs_with_the_most_allowed_tokens_are_summed(database: Database, user: UUID) -> None:
    """Even one run exceeds 32 bits."""
    runs = [tool_run(user, time=MINUTE, token_count=MAX_TOKENS) for _ in range(2)]
    await record(database, *runs)

    await claims(database).claim(LATER)

    [tokens] = await rows(database, "SELECT value FROM usage_reports WHERE meter = 'tokens_used'")
    assert tokens.value == 2 * MAX_TOKENS
