"""What do the ledger's periodic and operators' queries cost when it is large?

A PostgreSQL of its own, migrated, filled by SQL alone; each query under EXPLAIN ANALYZE, twice,
so that the second time its pages are in memory.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import TextClause, text

from local_stack.provision import provide_postgres
from nexus_database import Database
from support.databases import make_database
from usage_ingest.storage.accounts import EXPIRE, RELEASE, SUPERSEDE
from usage_ingest.storage.figures import MEASURE, MOST_COUNTED
from usage_ingest.storage.reader import (
    BEGINNING,
    EVENTS,
    FIRST_ID,
    REPORTED,
    REPORTS,
    UNANSWERED,
)

SERVICE: Final = "usage_ingest"
PASSWORD: Final = "benchmark"  # noqa: S105 - of a server on loopback that lives for minutes

RUNS_PER_REPORT: Final = 4
UNFINISHED: Final[Mapping[str, int]] = {
    "waiting": 50_000,
    "due": 20_000,
    "pending": 2_000,
    "forwarded": 20_000,
    "rejected": 1_000,
}
"""After an outage of Stripe, with many users who have no customer yet."""

SECONDARY: Final = """
SELECT json_agg(json_build_object('name', indexname, 'made', indexdef)) FROM pg_indexes
 WHERE tablename = 'usage_events' AND indexname <> 'usage_events_pkey'
"""

FILL: Final = """
INSERT INTO billing_accounts
SELECT md5('user' || n)::uuid, 'cus_' || n, 1 FROM generate_series(0, 99999) n;

INSERT INTO usage_events
SELECT md5('event' || n)::uuid, 'bench/hub', 1, sha256(n::text::bytea),
       md5('user' || (n / {per_report}) % 100000 || CASE WHEN n < {waiting} THEN 'new' ELSE '' END)
           ::uuid,
       'server-' || n % 50, 'tool-' || n % 300, 'direct', 'succeeded', n % 4000, NULL,
       json_build_object('tool_call_executed', 1), at, at,
       CASE WHEN n < {waiting} THEN 'waiting' WHEN n < {open} THEN 'due' ELSE 'claimed' END,
       CASE WHEN n < {open} THEN NULL ELSE md5('claim' || n / {per_report})::uuid END
  FROM (SELECT n, now() - interval '30 days' * n / {rows} AS at
          FROM generate_series(0, {rows} - 1) n) e;

INSERT INTO usage_reports
SELECT md5('report' || n)::uuid, md5('claim' || n)::uuid, 'nexus:' || md5('report' || n)::uuid,
       md5('user' || n % 100000)::uuid, 'cus_' || n % 100000, 1, 'tool_call_executed',
       {per_report}, '{{}}', at, {per_report}, at + interval '10 s', state, NULL,
       CASE WHEN state <> 'pending' THEN at + interval '11 s' END,
       CASE WHEN state IN ('rejected', 'reported') THEN at + interval '12 s' END,
       CASE WHEN state = 'rejected' THEN 'refused_by_stripe' END
  FROM (SELECT n, now() - interval '30 days' * n / ({rows} / {per_report}) AS at,
               CASE WHEN n - {first} < {pending} THEN 'pending'
                    WHEN n - {first} < {pending} + {forwarded} THEN 'forwarded'
                    WHEN n - {first} < {pending} + {forwarded} + {rejected} THEN 'rejected'
                    ELSE 'reported' END AS state
          FROM generate_series({first}, {rows} / {per_report} - 1) n) r;
"""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its values, and how often it runs."""

    name: str
    statement: TextClause
    values: Mapping[str, object]
    runs: str


def queries(now: datetime) -> Iterator[Query]:
    """Yield the queries of the ledger other than its batches."""
    most = {"most": MOST_COUNTED}
    oldest = {"oldest": now - timedelta(days=35)}
    yield Query("figures for the metrics", MEASURE, most, "every 10 s")
    yield Query("sweep: expire", EXPIRE, oldest, "every 3 s")
    yield Query("sweep: release", RELEASE, {}, "every 3 s")
    yield Query("sweep: supersede", SUPERSEDE, oldest, "every 3 s")
    yield Query("status: events", EVENTS, most, "by an operator")
    yield Query("status: reports", REPORTS, most, "by an operator")
    for days in (1, 7, 3650):
        since = {"since": now - timedelta(days=days)}
        yield Query(f"status: reported, {days} d", REPORTED, since, "by an operator")
    page = {"before": now, "created_at": BEGINNING, "report_id": FIRST_ID, "most": 100}
    yield Query("replay: a page", UNANSWERED, page, "by an operator")


async def plan(database: Database, query: Query) -> dict[str, Any]:
    """Run a statement under EXPLAIN ANALYZE, undo it, and return its plan."""
    explained = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.statement.text}")
    async with database.engine.connect() as connection:
        found = (await connection.execute(explained, dict(query.values))).scalar_one()
        await connection.rollback()
    explained_plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]
    return explained_plan


def scans(node: Mapping[str, Any]) -> set[str]:
    """Return the scans of a plan."""
    own = {f"{node['Node Type']} {node.get('Index Name', node.get('Relation Name', ''))}".strip()}
    parts = [scans(each) for each in node.get("Plans", ())]
    return (own if "Scan" in node["Node Type"] else set()).union(*parts)


async def fill(superuser: asyncpg.Connection, rows: int) -> None:
    """Fill the tables; the indexes are made afterwards, which is faster."""
    indexes = json.loads(await superuser.fetchval(SECONDARY))
    for each in indexes:
        await superuser.execute(f"DROP INDEX {each['name']}")
    opened = UNFINISHED["waiting"] + UNFINISHED["due"]
    numbers = {"rows": rows, "per_report": RUNS_PER_REPORT, "open": opened, **UNFINISHED}
    await superuser.execute(FILL.format(first=opened // RUNS_PER_REPORT, **numbers))
    for each in indexes:
        await superuser.execute(each["made"])
    for table in ("usage_events", "usage_reports", "billing_accounts"):
        await superuser.execute(f"VACUUM (ANALYZE) {table}")


async def measure(database: Database, rows: int) -> None:
    """Run every query twice and print its cost."""
    print(f"{rows:,} events; load average {os.getloadavg()[0]:.1f}")
    print("| query | runs | first | again | pages | read by |\n|---|---|---|---|---|---|")
    for query in queries(datetime.now(UTC)):
        first, again = [await plan(database, query) for _ in range(2)]
        pages = again["Plan"]["Shared Hit Blocks"] + again["Plan"]["Shared Read Blocks"]
        print(
            f"| {query.name} | {query.runs} | {first['Execution Time']:.1f} ms"
            f" | {again['Execution Time']:.1f} ms | {pages:,}"
            f" | {', '.join(sorted(scans(again['Plan'])))} |",
            flush=True,
        )


async def main() -> int:
    """Start the server, fill the ledger, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events (10,000,000)")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as directory, provide_postgres(Path(directory)) as server:
        url = await make_database(server, SERVICE, PASSWORD)
        began = time.monotonic()
        superuser = await asyncpg.connect(server.superuser_url, database=SERVICE)
        await fill(superuser, rows)
        await superuser.close()
        print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        database = Database(url, name="benchmark")
        await measure(database, rows)
        await database.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
