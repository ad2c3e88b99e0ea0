"""What a ledger costs does not depend on how much is done, nor on how large a batch is."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy import event as sqlalchemy_event

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_contracts import UserAssigned
from nexus_database import Database
from support.events import provisioned, second_version, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage import claims, reader, status
from usage_ingest.storage.accounts import (
    EXPIRE,
    MARK_ACCOUNTS,
    MARK_ASSIGNMENTS,
    OPEN_SINCE,
    RELEASE,
    SUPERSEDE,
    Accounts,
)
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.counted import LAST_READING, OPEN_NOW
from usage_ingest.storage.figures import MEASURE
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.periods import NUMBERS
from usage_ingest.storage.reports import TAKE, ReportAnswer, Reports
from usage_ingest.storage.totals import FOLD_AMOUNTS, FOLD_USAGE, Totals

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)

# Some of all that can be unfinished, and a user whose customer was replaced.
UNFINISHED = """
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state)
SELECT gen_random_uuid(), 'test', 1, sha256(''), gen_random_uuid(), 's', 't', 'hub', 'succeeded',
       '{"tool_call_executed": 1}', now() - n * interval '1 s',
       CASE WHEN n % 10 = 0 THEN 'due' ELSE 'waiting' END
  FROM generate_series(1, 200) n;
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation)
SELECT gen_random_uuid(), 'cus', CASE WHEN n = 1 THEN 2 ELSE 1 END FROM generate_series(1, 10) n;
INSERT INTO account_assignments (user_id, since, revision, account_id)
SELECT user_id, now() - interval '1 h', 1, gen_random_uuid() FROM usage_events
 WHERE billing_state = 'waiting' LIMIT 10;
INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id, generation,
                           meter, value, dimensions, occurred_at, event_count, state, forwarded_at)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'cus', 1, 'm', 1,
       '{}', now(), 1, CASE WHEN n % 2 = 0 THEN 'pending' ELSE 'forwarded' END, now()
  FROM generate_series(1, 100) n
"""

# Of ten reports nine are counted. Of the others, half were superseded, half are refused for good.
FINISHED = """
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation, seen_at, released)
SELECT md5('user' || n)::uuid, 'cus', 1, now(), true FROM generate_series({first}, {last}) n;
INSERT INTO account_assignments (user_id, since, revision, account_id, seen_at, released)
SELECT md5('user' || n)::uuid, now() - interval '1 y', 1, md5('team' || n % 100)::uuid, now(), true
  FROM generate_series({first}, {last}) n;
INSERT INTO account_plans (account_id, since, plan_type)
SELECT md5('user' || n)::uuid, now() - interval '1 y', 'pro'
  FROM generate_series({first}, {last}) n;
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state, claim_id)
SELECT md5('event' || n)::uuid, 'test', 1, sha256(''), md5('user' || n)::uuid, 's', 't',
       'hub', 'succeeded', '{{"tool_call_executed": 1}}', now() - n * interval '0.1 s', 'claimed',
       md5('claim' || n)::uuid
  FROM generate_series({first}, {last}) n;
INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id, generation,
                           meter, value, dimensions, occurred_at, event_count, state, forwarded_at,
                           answered_at, reason)
SELECT md5('report' || n)::uuid, md5('claim' || n)::uuid, 'nexus:' || n,
       md5('user' || n)::uuid, 'cus', 1, 'm', 1, '{{}}', at, 1, state, at, at,
       CASE WHEN state <> 'reported' THEN 'no_such_customer' END
  FROM (SELECT n, now() - n * interval '0.1 s' AS at,
               CASE WHEN n % 20 = 0 THEN 'superseded' WHEN n % 20 = 10 THEN 'rejected'
                    ELSE 'reported' END AS state
          FROM generate_series({first}, {last}) n) r;
INSERT INTO counted_pairs (stripe_customer_id, meter, as_of)
SELECT 'cus' || n, 'm', now() - n * interval '0.1 s' FROM generate_series({first}, {last}) n;
INSERT INTO differences (stripe_customer_id, meter, hour, kind, expected, at_most, counted,
                         first_seen, last_seen, closed_at)
SELECT 'cus' || n, 'm', now(), 'lower', 1, 1, 0, now(), now(), now()
  FROM generate_series({first}, {last}) n;
INSERT INTO report_placements (report_id, account_id, meter, value, occurred_at, answered_at,
                               placement)
SELECT md5('report' || n)::uuid, md5('user' || n)::uuid, 'm', 1, now(),
       now() - n * interval '0.1 s', 'in_grace'
  FROM generate_series({first}, {last}) n
"""

TABLES = (
    *("usage_events", "usage_reports", "billing_accounts", "account_assignments", "account_plans"),
    *("usage_deltas", "amount_deltas", "folded_usage", "folded_amounts"),
    *("counted_pairs", "differences", "report_placements"),
)
FEW, MANY = 10_000, 100_000

OLDEST = {"oldest": NOW - timedelta(days=35), "most": 1_000}
ACCOUNTS = {"accounts": 1_000}
CLAIMING = {
    "window": 10,
    "dimensions": ["server_id"],
    "charges": '{"": {}}',
    "routes": [],
    "unique_meters": None,
    "live_from": None,
    "closed_before": NOW,
    "most": 1_000,
    "traceparent": None,
    "links": 0,
}
PERIOD = text("SELECT amount_between(md5(:user)::uuid, 'm', :since, :until)")
USAGE = text("""
SELECT * FROM hourly_usage WHERE user_id = md5(:user)::uuid AND hour >= :since
""")
USER = UUID(hashlib.md5(b"user5", usedforsecurity=False).hexdigest())
FROM_START = {"created_at": reader.BEGINNING, "report_id": reader.FIRST_ID}
QUERIES: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "figures": (MEASURE, {"most": 100}),
    "release": (RELEASE, {**ACCOUNTS, "most": 1_000}),
    "open since": (OPEN_SINCE, {}),
    "mark accounts": (MARK_ACCOUNTS, {**ACCOUNTS, "open_since": NOW}),
    "mark assignments": (MARK_ASSIGNMENTS, {**ACCOUNTS, "open_since": NOW}),
    "expire": (EXPIRE, OLDEST),
    "supersede": (SUPERSEDE, OLDEST),
    "claim": (claims.CLAIM, CLAIMING),
    "lease": (TAKE, {"now": NOW, "until": NOW, "most": 500}),
    "status: events": (status.EVENTS, {"most": 100}),
    "status: reports": (status.REPORTS, {"most": 100}),
    "status: reported": (status.REPORTED, {"since": NOW - timedelta(days=9), "most": 500}),
    "status: newest": (status.NEWEST, {}),
    "status: differences": (OPEN_NOW, {"most": 100}),
    "status: placements": (NUMBERS, {"since": NOW - timedelta(days=9), "most": 500}),
    "status: last reading": (LAST_READING, {}),
    "explain: event": (reader.EVENT, {"event_id": UUID(int=1)}),
    "explain: reports": (
        reader.CLAIM,
        {"claim_id": UUID(int=1), "late_claim_id": UUID(int=2)},
    ),
    "payers": (reader.ASSIGNMENTS, {"user_id": USER, "most": 1_000}),
    "fold: usage": (FOLD_USAGE, {"most": 1_000}),
    "fold: amounts": (FOLD_AMOUNTS, {"most": 1_000, "announced": ["m"]}),
    "amount of a period": (
        PERIOD,
        {"user": "user5", "since": NOW - timedelta(days=9), "until": NOW},
    ),
    "usage of a user": (USAGE, {"user": "user5", "since": NOW - timedelta(days=9)}),
    "replay: a page": (reader.UNANSWERED, {"before": NOW, "most": 100, **FROM_START}),
}


PLANS = ("force_custom_plan", "force_generic_plan")
"""PostgreSQL plans a prepared statement for its values five times, then perhaps for any values."""


def literal(value: object) -> str:
    """Return a value in SQL."""
    if value is None:
        return "NULL"
    return f"'{{{','.join(value)}}}'" if isinstance(value, list) else f"'{value}'"


async def explained(
    database: Database, plans: str, query: TextClause, values: dict[str, Any]
) -> dict[str, Any]:
    """Run a prepared query, undo it, and return its plan with what it did."""
    numbers = {name: f"${place}" for place, name in enumerate(values, start=1)}
    numbered = re.sub(r"(?<![:\\]):(\w+)", lambda found: numbers[found[1]], query.text)
    listed = ", ".join(map(literal, values.values()))
    async with database.engine.connect() as connection:
        session = (await connection.get_raw_connection()).driver_connection
        assert session is not None
        await session.execute("BEGIN")
        await session.execute(f"SET LOCAL plan_cache_mode = {plans}")
        await session.execute(f"PREPARE query AS {numbered.replace(chr(92), '')}")
        arguments = f"({listed})" if listed else ""
        found = await session.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE query{arguments}"
        )
        await session.execute("ROLLBACK; DEALLOCATE query")
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


async def pages(database: Database, query: TextClause, values: dict[str, Any]) -> int:
    """Return how many pages a query touches at most."""
    plans = [await explained(database, each, query, values) for each in PLANS]
    return max(int(each["Shared Hit Blocks"] + each["Shared Read Blocks"]) for each in plans)


@pytest.mark.long
async def test_queries_touch_as_many_pages_however_much_is_done(
    database: Database, postgres: PostgresServer
) -> None:
    """With ten times as many finished events, reports and users. An index may be a level deeper."""
    name = database.engine.url.database
    superuser_url = f"{postgres.superuser_url.rpartition('/')[0]}/{name}"

    async def finish(first: int, last: int) -> dict[str, int]:
        run_sql(superuser_url, FINISHED.format(first=first, last=last))
        while await Totals(database).fold():
            pass
        for table in TABLES:
            run_sql(superuser_url, f"VACUUM (ANALYZE) {table}")
        return {each: await pages(database, *QUERIES[each]) for each in QUERIES}

    run_sql(superuser_url, UNFINISHED)
    few = await finish(1, FEW)
    many = await finish(FEW + 1, MANY)

    grown = {
        each: (few[each], many[each]) for each in QUERIES if many[each] > few[each] * 1.5 + 100
    }
    assert grown == {}


STALE = """
UPDATE usage_events SET billing_state = '{state}', claim_id = NULL
 WHERE billing_state = 'claimed';
UPDATE usage_reports SET state = '{report_state}', reason = NULL WHERE state = 'reported';
ANALYZE usage_events; ANALYZE usage_reports; ANALYZE billing_accounts
"""
FINISHED_AGAIN = """
UPDATE usage_events SET billing_state = 'claimed', claim_id = gen_random_uuid()
 WHERE billing_state = '{state}' AND server_id = 's' AND source = 'test' AND user_id IN
       (SELECT user_id FROM billing_accounts WHERE released);
UPDATE usage_reports SET state = 'reported' WHERE state = '{report_state}' AND meter = 'm'
   AND identifier LIKE 'nexus:%'
"""


@pytest.mark.long
@pytest.mark.parametrize(("state", "report_state"), [("due", "pending"), ("waiting", "forwarded")])
async def test_queries_after_an_outage_touch_few_pages(
    database: Database, postgres: PostgresServer, state: str, report_state: str
) -> None:
    """The statistics are from the outage, when nearly everything was unfinished."""
    name = database.engine.url.database
    superuser_url = f"{postgres.superuser_url.rpartition('/')[0]}/{name}"
    of = {"state": state, "report_state": report_state}
    run_sql(superuser_url, UNFINISHED)
    run_sql(superuser_url, "ALTER TABLE usage_events SET (autovacuum_enabled = false)")

    async def finish(first: int, last: int) -> dict[str, int]:
        run_sql(superuser_url, FINISHED.format(first=first, last=last))
        while await Totals(database).fold():
            pass
        run_sql(superuser_url, STALE.format(**of))
        run_sql(superuser_url, FINISHED_AGAIN.format(**of))
        for table in ("usage_events", "usage_reports"):
            run_sql(superuser_url, f"VACUUM {table}")
        for table in set(TABLES) - {"usage_events", "usage_reports"}:
            run_sql(superuser_url, f"VACUUM (ANALYZE) {table}")
        return {each: await pages(database, *QUERIES[each]) for each in QUERIES}

    few = await finish(1, FEW)
    many = await finish(FEW + 1, MANY)

    grown = {
        each: (few[each], many[each]) for each in QUERIES if many[each] > few[each] * 1.5 + 100
    }
    assert grown == {}


def rows_handled(plan: dict[str, Any]) -> float:
    """Return how many rows all steps of a plan produced or dropped."""
    dropped = sum(plan.get(f"Rows Removed by {each}", 0) for each in ("Filter", "Join Filter"))
    own = plan["Actual Loops"] * (plan["Actual Rows"] + dropped)
    return float(own + sum(rows_handled(each) for each in plan.get("Plans", ())))


async def test_claim_of_a_backlog_is_linear_with_statistics_of_a_quiet_time(
    database: Database, postgres: PostgresServer
) -> None:
    """Nothing was due when the table was analyzed, as before any outage of this service."""
    name = database.engine.url.database
    superuser_url = f"{postgres.superuser_url.rpartition('/')[0]}/{name}"
    run_sql(superuser_url, FINISHED.format(first=1, last=2_000))
    run_sql(superuser_url, "VACUUM (ANALYZE) usage_events")
    run_sql(superuser_url, "UPDATE usage_events SET billing_state = 'due', claim_id = NULL")

    async def handled(most: int) -> float:
        values = CLAIMING | {"most": most}
        plans = [await explained(database, each, claims.CLAIM, values) for each in PLANS]
        return max(map(rows_handled, plans))

    assert await handled(1_000) < 15 * await handled(100)


def statements(database: Database) -> list[str]:
    """Return the list that from now on grows by each statement."""
    executed: list[str] = []
    sqlalchemy_event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda *arguments: executed.append(arguments[2]),
    )
    return executed


async def test_batches_take_as_many_statements_at_any_size(database: Database) -> None:
    """With new events, repeated and conflicting ones in both versions, claimed up to the answer."""
    ledger, reports = Ledger(database), Reports(database)
    claiming = Claims(database, window=timedelta(0), dimensions=())
    executed = statements(database)

    async def chain(size: int) -> int:
        user, first = uuid4(), len(executed)
        known = [tool_run(user) for _ in range(size)]
        assigned = UserAssigned(user_id=user, account_id=user, since=NOW, revision=1)
        await Accounts(database).assign(assigned)
        await Accounts(database).apply(provisioned(user, f"cus_{size}").data)
        await ledger.record([Entry.of(each, RULES, NOW) for each in known])
        mixed = [
            each
            for run in known
            for each in (
                run,
                second_version(run, model="large"),
                second_version(run, model="small"),
                tool_run(user, event_id=run.id, tool_name="another"),
                tool_run(user),
                second_version(tool_run(uuid4()), model="large"),
            )
        ]
        await ledger.record([Entry.of(each, RULES, NOW) for each in mixed])
        claimed = await claiming.claim(NOW)
        leased: Sequence[UUID] = [
            each.report_id for each in (await reports.lease(NOW, most=1_000)).reports
        ]
        sent, unsent = leased[: size + 1], leased[size + 1 :]
        await reports.settle_lease(NOW, forwarded=sent, failed=unsent)
        answers = [ReportAnswer(each, "reported", NOW, None, ever_unknown=False) for each in leased]
        await reports.answer(answers + answers)
        await Accounts(database).sweep(NOW)
        assert claimed.reports == len(leased) == 2 * size
        return len(executed) - first

    assert await chain(2) == await chain(200)
