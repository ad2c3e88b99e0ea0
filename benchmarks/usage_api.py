"""What does an answer of the usage API cost, with and without recording going on?

A user with a million events in thirty days, and 500 others who may be asked about. The API is a
process on a PostgreSQL of its own; runs are recorded by this process, in batches as usage-ingest
does. Printed are the processor time of the API for an answer, that of PostgreSQL where nothing is
recorded, and how long an answer takes.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import aiohttp

from harness import load_average, run, say, table
from local_stack.catalogue import USAGE_API, base_environment, usage_api_command
from local_stack.ports import LOOPBACK, free_ports
from local_stack.postgres import PostgresServer
from local_stack.server_process import ServerProcess
from nexus_database import Database
from nexus_service.api_keys import make_api_key
from support.databases import make_database, make_role, opened
from support.events import tool_run
from support.processor_time import processor_seconds
from support.usage_ledger import UsageLedger
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.totals import Totals

PASSWORD: Final = "benchmark"  # noqa: S105 - of a server on loopback that lives for minutes
PLANS: Final = Path(__file__).parents[1] / "deploy" / "plans.yaml"
USERS: Final = 500
TOOLS: Final = 20
BATCH: Final = 500
FOLD_AFTER: Final = 10
"""Batches."""
AT_ONCE: Final = 2
"""Questions, of which the API answers as many of each kind at once."""
RULES: Final = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))

# In the order of time, as they would have come: a batch has a user's runs of a few minutes.
FILL: Final = """
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, token_count, readings, occurred_at, billing_state,
                          claim_id)
SELECT gen_random_uuid(), 'bench', 1, decode(repeat('00', 32), 'hex'), '{user}',
       'server-' || n % 4, 'tool-' || n % {tools}, 'hub', 'succeeded', 100,
       '{{"tool_call_executed": 1}}', now() - interval '30 days' * n / {events}, 'claimed',
       gen_random_uuid()
  FROM generate_series({first}, {last}) n
"""
FILL_REPORTS: Final = """
INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id, generation,
                           meter, value, dimensions, occurred_at, event_count, state)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid()::text, '{user}', 'cus_1', 1,
       'premium_tool_calls', 4, '{{}}', now() - interval '30 days' * n / {reports}, 4,
       CASE WHEN n < 200 THEN 'pending' ELSE 'reported' END
  FROM generate_series(1, {reports}) n
"""

FILL_PLANS: Final = f"""
INSERT INTO account_plans (account_id, since, plan_type)
SELECT lpad(to_hex(n), 32, '0')::uuid, now() - interval '1 year', 'pro'
  FROM generate_series(1, {USERS}) n
"""  # noqa: S608 - of this module's constants


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is asked again and again, of the users in turn."""

    name: str
    path: str
    users: tuple[UUID, ...]
    tagged: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of an answer (median, of 95 in 100), microseconds of processor time for it."""

    median: float
    slow: float
    api: float
    postgres: float


class Bench:
    """The API on a filled ledger."""

    def __init__(self, postgres: PostgresServer, database: Database, directory: Path) -> None:
        self._postgres = postgres
        self._database = database
        self._directory = directory
        self.secret, self._key = make_api_key("bench", ["*"], ["entitlements.read", "usage.read"])

    async def fill(self, events: int) -> tuple[UUID, tuple[UUID, ...]]:
        """Record a user with ``events``, and others with a few; return both."""
        much, others = uuid4(), tuple(UUID(int=n) for n in range(1, USERS + 1))
        owner = self._postgres.url("usage_ingest", "usage_ingest_owner", PASSWORD)
        async with opened(owner) as database:
            ledger = UsageLedger(database)
            for first in range(0, events, BATCH * 10):
                span = {"first": first, "last": min(first + BATCH * 10, events) - 1}
                await ledger.execute(FILL.format(user=much, tools=TOOLS, events=events, **span))
            await ledger.execute(FILL_REPORTS.format(user=much, reports=events // 10))
            await ledger.execute(FILL_PLANS)
            await ledger.subscribe(much, "pro")
            while await Totals(self._database).fold():
                pass
            await ledger.execute("ANALYZE")
        return much, others

    async def cost(self, server: ServerProcess, question: Question, count: int) -> Cost:
        """Ask ``count`` times, ``AT_ONCE`` at a time."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        async with aiohttp.ClientSession(server.url, headers=headers) as client:
            tags = await _tags(client, question) if question.tagged else {}
            took: list[float] = []
            users = itertools.islice(itertools.cycle(question.users), count)
            began = self.spent(server)
            await asyncio.gather(
                *(_ask(client, question, users, tags, took) for _ in range(AT_ONCE))
            )
            spent = [late - early for early, late in zip(began, self.spent(server), strict=True)]
        api, postgres = (seconds / count * 1e6 for seconds in spent)
        slow = statistics.quantiles(took, n=20)[-1]
        return Cost(statistics.median(took) * 1e3, slow * 1e3, api, postgres)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[ServerProcess]:
        """Run the API."""
        [port] = free_ports(None)
        settings = {
            "DATABASE_URL": self._postgres.url("usage_ingest", "usage_reader", PASSWORD),
            "API_KEYS": self._key.configured,
            "API_RATE_LIMIT": "1000000",
            "PLANS_FILE": str(PLANS),
            "HTTP_PORT": str(port),
        }
        server = ServerProcess(
            USAGE_API,
            usage_api_command(),
            url=f"http://{LOOPBACK}:{port}",
            ready_path="/readyz",
            log=self._directory / "usage-api.log",
            env=base_environment() | settings,
            grace=10.0,
            on_start=lambda: None,
        )
        await asyncio.to_thread(server.launch_and_wait)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.stop)

    @asynccontextmanager
    async def recording(self, users: tuple[UUID, ...], rate: int) -> AsyncIterator[None]:
        """Record ``rate`` runs a second, and fold, while the context lasts."""

        async def record() -> None:
            ledger, totals, due = Ledger(self._database), Totals(self._database), time.monotonic()
            for number in itertools.count():
                runs = [_run(users[n % USERS], n % TOOLS) for n in range(BATCH)]
                await ledger.record(runs)
                if number % FOLD_AFTER == 0:
                    await totals.fold()
                due += BATCH / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        if not rate:
            yield
            return
        task = asyncio.create_task(record())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def spent(self, server: ServerProcess) -> tuple[float, float]:
        """Return the processor time of the API and of PostgreSQL so far, in seconds."""
        return (
            processor_seconds(server.pids[USAGE_API]),
            processor_seconds(*self._postgres.pids.values()),
        )


def _run(user: UUID, tool: int) -> Entry:
    now = datetime.now(UTC)
    run_of = tool_run(user_id=user, tool_name=f"tool-{tool}", time=now, token_count=100)
    return Entry.of(run_of, RULES, now)


async def _tags(client: aiohttp.ClientSession, question: Question) -> dict[UUID, str]:
    tags = {}
    for user in question.users:
        async with client.get(question.path.format(user)) as answer:
            tags[user] = answer.headers["ETag"]
    return tags


async def _ask(
    client: aiohttp.ClientSession,
    question: Question,
    users: Iterator[UUID],
    tags: dict[UUID, str],
    took: list[float],
) -> None:
    for user in users:
        headers = {"If-None-Match": tags[user]} if question.tagged else {}
        began = time.perf_counter()
        async with client.get(question.path.format(user), headers=headers) as answer:
            await answer.read()
            assert answer.status in (200, 304), answer.status
        took.append(time.perf_counter() - began)


@asynccontextmanager
async def filled_bench(events: int) -> AsyncIterator[tuple[Bench, UUID, tuple[UUID, ...]]]:
    """Run a PostgreSQL with a filled ledger; yield the user with ``events`` and the others, too."""
    with (
        tempfile.TemporaryDirectory() as name,
        PostgresServer.start(Path(name) / "postgres", durable=False) as postgres,
    ):
        make_role(postgres, "usage_reader", PASSWORD)
        url = await make_database(postgres, "usage_ingest", PASSWORD)
        async with opened(url, size=2) as database:
            bench = Bench(postgres, database, Path(name))
            much, others = await bench.fill(events)
            say("the ledger is filled")
            yield bench, much, others


async def main(options: argparse.Namespace) -> None:
    """Fill a ledger, ask, and print a table."""
    rows: list[list[str]] = []
    async with filled_bench(options.events) as (bench, much, others), bench.server() as server:
        entitlements = "/v1/entitlements/{}"
        week = f"from={datetime.now(UTC).date() - timedelta(days=6)}&user={{}}"
        questions = (
            (Question("entitlements", entitlements, others), options.count),
            (Question("entitlements, 304", entitlements, others[:20], True), options.count),
            (Question("entitlements, a million", entitlements, (much,)), 200),
            (Question("usage, 30 days by day", "/v1/usage?user={}", (much,)), 60),
            (Question("usage, 7 days by hour", f"/v1/usage?by=hour&{week}", (much,)), 60),
            (Question("usage, 30 days by hour", "/v1/usage?by=hour&user={}", (much,)), 30),
        )
        for question, count in questions:
            await bench.cost(server, question, max(8, count // 20))
        for rate in (0, options.rate):
            async with bench.recording(others, rate):
                for question, count in questions:
                    cost = await bench.cost(server, question, count)
                    shown = "" if rate else f"{cost.postgres:.0f}"
                    say(f"{question.name}, {rate} runs/s: {cost.median:.1f} ms")
                    times = f"{cost.median:.1f}", f"{cost.slow:.1f}"
                    rows.append([question.name, f"{rate}", f"{cost.api:.0f}", shown, *times])
    print(f"usage_api: {options.events} events, load average {load_average()}\n")
    titles = [
        "question",
        "runs/s recorded",
        "API CPU µs",
        "PostgreSQL CPU µs",
        "median ms",
        "95 % ms",
    ]
    print(table(titles, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the one user (1000000)")
    parser.add_argument("--count", type=int, default=2000, help="entitlements each time (2000)")
    parser.add_argument("--rate", type=int, default=1000, help="runs recorded in a second (1000)")
    run(main(parser.parse_args()))
