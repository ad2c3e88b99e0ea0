"""A ledger with millions of events, filled by SQL alone, on a PostgreSQL of its own."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import asyncpg

from local_stack.postgres import PostgresServer
from nexus_database import Database, migrate
from support.databases import make_database

SERVICE: Final = "usage_ingest"
PASSWORD: Final = "benchmark"  # noqa: S105 - of a server on loopback that lives for minutes

IdVersion = Literal[4, 7]

ACCOUNTS: Final = 100_000
RUNS_PER_REPORT: Final = 4
UNFINISHED: Final[Mapping[str, int]] = {
    "waiting": 50_000,
    "due": 20_000,
    "pending": 2_000,
    "forwarded": 20_000,
    "rejected": 1_000,
}
"""After an outage of Stripe, with many users who have no customer yet."""

_FAST: Final = (
    "ALTER SYSTEM SET fsync = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "ALTER SYSTEM SET max_wal_size = '8GB'",
    "ALTER SYSTEM SET autovacuum = off",
    "SELECT pg_reload_conf()",
    "SET maintenance_work_mem = '800MB'",
)
_SAFE: Final = ("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()", "CHECKPOINT")
"""While the tables are filled nothing has to survive; then all is as a new server has it."""

_TABLES: Final = ("usage_events", "usage_reports")
_KEYS: Final = """
SELECT conrelid::regclass || ' ADD CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid),
       conrelid::regclass || ' DROP CONSTRAINT ' || conname
  FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u')
"""
_INDEXES: Final = """
SELECT indexdef, indexname FROM pg_indexes
 WHERE tablename = $1
   AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE contype IN ('p', 'u'))
"""

# The accounts of the last seconds are not released yet.
_FILL_ACCOUNTS: Final = f"""
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation, released)
SELECT md5('user' || n)::uuid, 'cus_' || n, 1, n >= 100 FROM generate_series(0, {ACCOUNTS} - 1) n
"""  # noqa: S608 - of this module's constants

_EVENT_IDS: Final[Mapping[IdVersion, str]] = {
    4: "md5('event' || n)::uuid",
    7: """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
           || substr(md5('event' || n), 14, 3) || '8' || substr(md5('event' || n), 18))::uuid""",
}

# The oldest first, as they would have come.
_FILL_EVENTS: Final = """
INSERT INTO usage_events (
    event_id, source, schema_version, digest, user_id, server_id, tool_name, origin, status,
    token_count, readings, occurred_at, created_at, billing_state, claim_id)
SELECT {event_id}, 'bench/hub', 1, sha256(n::text::bytea),
       md5('user' || (n / {per_report}) % {accounts}
                  || CASE WHEN n < {waiting} THEN 'new' ELSE '' END)::uuid,
       'server-' || n % 50, 'tool-' || n % 300, 'direct', 'succeeded', n % 4000,
       '{{"tool_call_executed": 1}}', at, at,
       CASE WHEN n < {waiting} THEN 'waiting' WHEN n < {open} THEN 'due' ELSE 'claimed' END,
       CASE WHEN n < {open} THEN NULL ELSE md5('claim' || n / {per_report})::uuid END
  FROM (SELECT n, now() - interval '30 days' * n / {rows} AS at
          FROM generate_series({rows} - 1, 0, -1) n) e
"""

_FILL_REPORTS: Final = """
INSERT INTO usage_reports (
    report_id, claim_id, identifier, user_id, stripe_customer_id, generation, meter, value,
    dimensions, occurred_at, event_count, created_at, state, forwarded_at, answered_at, reason)
SELECT md5('report' || n)::uuid, md5('claim' || n)::uuid, 'nexus:' || md5('report' || n)::uuid,
       md5('user' || n % {accounts})::uuid, 'cus_' || n % {accounts}, 1, 'tool_call_executed',
       {per_report}, '{{}}', at, {per_report}, at + interval '10 s', state,
       CASE WHEN state <> 'pending' THEN at + interval '11 s' END,
       CASE WHEN state IN ('rejected', 'reported') THEN at + interval '12 s' END,
       CASE WHEN state = 'rejected' THEN 'refused_by_stripe' END
  FROM (SELECT n, now() - interval '30 days' * n / ({rows} / {per_report}) AS at,
               CASE WHEN n - {first} < {pending} THEN 'pending'
                    WHEN n - {first} < {pending} + {forwarded} THEN 'forwarded'
                    WHEN n - {first} < {pending} + {forwarded} + {rejected} THEN 'rejected'
                    ELSE 'reported' END AS state
          FROM generate_series({rows} / {per_report} - 1, {first}, -1) n) r
"""


@dataclass(frozen=True, slots=True)
class FilledLedger:
    """A ledger, its server, and a superuser's URL of it; it had ``rows`` events when filled."""

    rows: int
    server: PostgresServer
    database: Database
    superuser_url: str


@asynccontextmanager
async def filled_ledger(directory: Path, rows: int, ids: IdVersion) -> AsyncIterator[FilledLedger]:
    """Start the server of a ledger of ``rows`` events; fill it unless ``directory`` has it."""
    place = directory / f"version-{ids}-rows-{rows}"
    place.mkdir(parents=True, exist_ok=True)
    filled = place / "filled"
    with PostgresServer.start(place) as server:
        superuser_url = server.superuser_url.rpartition("/")[0] + f"/{SERVICE}"
        if filled.exists():
            await migrate(server.url(SERVICE, f"{SERVICE}_owner", PASSWORD), SERVICE)
        else:
            began = time.monotonic()
            await make_database(server, SERVICE, PASSWORD)
            await _fill(superuser_url, rows, ids)
            filled.write_text(f"{time.monotonic() - began:.0f} s\n")
        database = Database(server.url(SERVICE, SERVICE, PASSWORD), name="benchmark")
        try:
            yield FilledLedger(rows, server, database, superuser_url)
        finally:
            await database.close()


async def _fill(superuser_url: str, rows: int, ids: IdVersion) -> None:
    """Fill the tables; keys and indexes are made afterwards, which is many times faster."""
    opened = UNFINISHED["waiting"] + UNFINISHED["due"]
    numbers = {
        **UNFINISHED,
        "rows": rows,
        "accounts": ACCOUNTS,
        "per_report": RUNS_PER_REPORT,
        "open": opened,
        "first": opened // RUNS_PER_REPORT,
        "event_id": _EVENT_IDS[ids],
    }
    session = await asyncpg.connect(superuser_url)
    for statement in _FAST:
        await session.execute(statement)
    made_afterwards = []
    for table in _TABLES:
        for index, name in await session.fetch(_INDEXES, table):
            await session.execute(f"DROP INDEX {name}")
            made_afterwards.append(index)
        for add, drop in await session.fetch(_KEYS, table):
            await session.execute(f"ALTER TABLE {drop}")
            made_afterwards.append(f"ALTER TABLE {add}")
    await session.execute(_FILL_ACCOUNTS)
    await session.execute(_FILL_EVENTS.format(**numbers))
    await session.execute(_FILL_REPORTS.format(**numbers))
    for statement in made_afterwards:
        await session.execute(statement)
    for table in (*_TABLES, "billing_accounts"):
        await session.execute(f"VACUUM (ANALYZE) {table}")
    for statement in _SAFE:
        await session.execute(statement)
    await session.close()
