"""How long does a statement of a million runs take, and in how much memory?

An account whose 500 users used 20 tools in 30 days, beside as many runs of others, on a PostgreSQL
of its own. `usage-ingest statement` runs as a process: printed are its seconds, its peak of
resident memory, and PostgreSQL's processor time, for the account and for one of its users.
"""

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from harness import load_average, run, say, table
from local_stack.catalogue import base_environment
from local_stack.postgres import PostgresServer
from nexus_database import Database
from support.databases import make_database, opened
from support.processor_time import processor_seconds
from support.usage_ledger import UsageLedger
from usage_ingest.storage.totals import Totals

PASSWORD: Final = "benchmark"  # noqa: S105 - of a server on loopback that lives for minutes
ACCOUNT: Final = UUID(int=1)
USERS: Final = 500
USER: Final = UUID(hashlib.md5(b"user00", usedforsecurity=False).hexdigest())
"""The first of them, as PostgreSQL makes their ids."""
RUNS_OF_A_REPORT: Final = 10
AT_ONCE: Final = 10_000
SPAN: Final = timedelta(days=30)

# Every other claim is another account's.
FILL: Final = f"""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, token_count, readings, occurred_at, billing_state,
                          claim_id)
SELECT gen_random_uuid(), 'bench', 1, decode(repeat('00', 32), 'hex'),
       md5('user' || n % {USERS} || (n / {RUNS_OF_A_REPORT}) % 2)::uuid, 'server-' || n % 4,
       'tool-' || n % 20, 'hub', 'succeeded', 100,
       jsonb_build_object('calls', 1, 'tokens', n % {{readings}} + 1),
       CAST(:end AS timestamptz)
       - interval '30 days' * ((n / {RUNS_OF_A_REPORT} + 1) * {RUNS_OF_A_REPORT}) / {{events}},
       'claimed', md5('claim' || n / {RUNS_OF_A_REPORT})::uuid
  FROM generate_series({{first}}, {{last}}) n
"""  # noqa: S608 - of this module's constants
FILL_REPORTS: Final = """
INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id, generation,
                           meter, value, dimensions, occurred_at, event_count, state, answered_at)
SELECT gen_random_uuid(), claim_id, gen_random_uuid()::text,
       CASE WHEN user_id IN (SELECT user_id FROM account_assignments)
            THEN CAST(:account AS uuid) ELSE gen_random_uuid() END,
       CASE WHEN user_id IN (SELECT user_id FROM account_assignments) THEN 'cus_1' ELSE 'cus_2' END,
       1, meter, value, '{}', at, runs, 'reported', at + interval '10 s'
  FROM (SELECT claim_id, (array_agg(user_id))[1] AS user_id, r.meter, sum(r.value::bigint) AS value,
               min(occurred_at) AS at, count(*) AS runs
          FROM usage_events CROSS JOIN LATERAL jsonb_each_text(readings) r(meter, value)
         GROUP BY claim_id, r.meter) c
"""
FILL_ACCOUNT: Final = """
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation)
VALUES (CAST(:account AS uuid), 'cus_1', 1)
"""
FILL_USERS: Final = f"""
INSERT INTO account_assignments (user_id, since, revision, account_id)
SELECT md5('user' || n || 0)::uuid, '2020-01-01', 1, CAST(:account AS uuid)
  FROM generate_series(0, {USERS} - 1) n
"""  # noqa: S608 - of this module's constants
# As Stripe would have counted them.
FILL_COUNTED: Final = """
INSERT INTO counted_hours (stripe_customer_id, meter, hour, value, lagging, as_of)
SELECT 'cus_1', meter, date_bin('1 hour', occurred_at, timestamptz 'epoch'), sum(value), false,
       now()
  FROM usage_reports WHERE stripe_customer_id = 'cus_1' GROUP BY 2, 3
"""


async def fill(owner: Database, events: int, readings: int, end: datetime) -> None:
    """Record as many runs of the account, and of others."""
    ledger = UsageLedger(owner)
    await ledger.execute(FILL_ACCOUNT, account=ACCOUNT)
    await ledger.execute(FILL_USERS, account=ACCOUNT)
    for first in range(0, 2 * events, AT_ONCE):
        span = {"first": first, "last": min(first + AT_ONCE, 2 * events) - 1}
        await ledger.execute(FILL.format(events=2 * events, readings=readings, **span), end=end)
    await ledger.execute(FILL_REPORTS, account=ACCOUNT)
    await ledger.execute(FILL_COUNTED)
    while await Totals(owner).fold():
        pass
    await ledger.execute("ANALYZE")


def statement(url: str, of: str, end: datetime, form: str) -> tuple[float, float]:
    """Run the command; return its seconds and its peak of memory in MiB."""
    span = ("--from", (end - SPAN).isoformat(), "--to", end.isoformat())
    command = [sys.executable, "-m", "usage_ingest", "statement", of, *span, form]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            command, env=base_environment() | {"DATABASE_URL": url}, stdout=output
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return time.monotonic() - began, used.ru_maxrss / 1024


async def main(options: argparse.Namespace) -> None:
    """Fill a ledger, make statements, and print a table."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rows: list[list[str]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        PostgresServer.start(Path(name) / "postgres", durable=False) as postgres,
    ):
        await make_database(postgres, "usage_ingest", PASSWORD)
        owner = postgres.url("usage_ingest", "usage_ingest_owner", PASSWORD)
        async with opened(owner, size=2) as database:
            await fill(database, options.events, options.readings, end)
        say("the ledger is filled")
        url = postgres.url("usage_ingest", "usage_ingest", PASSWORD)
        for of, form in (("cus_1", "--json"), ("cus_1", "--csv"), (str(USER), "--json")):
            began = processor_seconds(*postgres.pids.values())
            seconds, peak = await asyncio.to_thread(statement, url, of, end, form)
            spent = processor_seconds(*postgres.pids.values()) - began
            whose = "account" if of == "cus_1" else "user"
            rows.append([whose, form, f"{seconds:.1f}", f"{peak:.0f}", f"{spent:.1f}"])
    print(f"statement: {options.events} runs, load average {load_average()}\n")
    print(table(["of", "form", "seconds", "peak MiB", "PostgreSQL CPU s"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the account (1000000)")
    parser.add_argument("--readings", type=int, default=500, help="different ones (500)")
    run(main(parser.parse_args()))
