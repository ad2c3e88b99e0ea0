"""One run of a chain: a backlog of runs, worked off by the services, and counted at the end."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import asyncpg

from harness import Cost, Moment, Servers, load_average, say
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE, USAGE_RECORDED_QUEUE
from support.backlog import pile_up, runs_over_time
from support.load_scenarios import users_with_accounts
from support.platform import Platform, standalone_platform

INGEST: Final = "usage-ingest"
REPORTER: Final = "stripe-reporter"
LEDGER: Final = "usage_ingest"
MODULES: Final = (LEDGER, "stripe_reporter")
USERS: Final = 500
POLL_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0
"""Time for a report to arrive at Stripe a second time."""

CALLS_PER_SECOND: Final = "10000"
"""More than the reporter manages: its own limit is to be seen, not the one of its settings."""

RECORDED: Final = "SELECT count(*) FROM usage_events"
RELAYED: Final = """
SELECT coalesce(sum(event_count), 0) FROM usage_reports WHERE state <> 'pending'
"""
FOLDED_RUNS: Final = "SELECT coalesce(sum(runs), 0) FROM folded_usage"
FOLDED_AMOUNTS: Final = "SELECT coalesce(sum(value), 0) FROM folded_amounts"
REPORTS: Final = "SELECT count(*) FROM usage_reports"
OF_CUSTOMERS: Final = """
SELECT a.stripe_customer_id, count(*) AS events
  FROM usage_events e JOIN billing_accounts a USING (user_id) GROUP BY 1
"""
DETECT_DEADLOCKS: Final = f"ALTER DATABASE {LEDGER} SET deadlock_timeout = '100ms'"
"""With the default, a second, the services' `lock_timeout` would end one before it is detected."""

DEADLOCKS: Final = "SELECT sum(deadlocks)::int FROM pg_stat_database"


class InexactError(Exception):
    """An event was lost or counted twice."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: where it ends, its windows in seconds, and how many runs it works off.

    Each user runs so many ``tools`` in turn. After the last event the chain runs for ``rest``
    seconds more, which are in its cost: what is done every few seconds is done.
    """

    end: str
    window: int
    count: int = 60_000
    tools: int = 1
    rest: float = 0.0


CHAINS: Final[Mapping[str, Chain]] = MappingProxyType(
    {
        "record": Chain("the ledger", 10),
        "relay": Chain("the reporter's queue", 10),
        "money": Chain("Stripe", 10),
        "reports": Chain("Stripe", 0, count=10_000),
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """What the events after the first moment cost; of those before, claim and relay may be in it.

    ``deadlocks`` are those that PostgreSQL resolved.
    """

    cost: Cost
    events: int
    seconds: float
    reports: int
    deadlocks: int


class Run:
    """One chain on a platform of its own."""

    def __init__(
        self,
        chain: Chain,
        platform: Platform,
        servers: Servers,
        ledger: asyncpg.Connection,
        patience: float,
    ) -> None:
        self._chain = chain
        self._platform = platform
        self._servers = servers
        self._ledger = ledger
        self._patience = patience

    async def measure(self, count: int, processes: int) -> Result:
        """Let ``processes`` of usage-ingest, and a reporter, work off ``count`` runs.

        Raises:
            InexactError: the sums are wrong at the end.
            TimeoutError: it took too long.
            ChildDiedError: a process ended.
        """
        platform, deadlocks = self._platform, await self._number(DEADLOCKS)
        users = [uuid4() for _ in range(USERS)]
        if self._chain.end != "the ledger":  # events of unknown users stay there
            users = await users_with_accounts(platform, USERS)
        backlog = runs_over_time(users, count, self._chain.tools)
        await pile_up(platform.vhost, backlog, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)

        if self._chain.end == "Stripe":
            platform.start(REPORTER)
        launched = await self._moment()
        await asyncio.to_thread(platform.start_several, INGEST, processes)
        ready = await self._moment()
        early = ready
        if ready.number > count // 2:
            say("Half was recorded before all was ready: the start is measured, too.")
            early = launched
        await self._until_done(count)
        done = time.monotonic()
        await asyncio.sleep(self._chain.rest)
        late = await self._moment()

        await self._check(count)
        return Result(
            Cost.between(early, late),
            late.number - early.number,
            done - early.time,
            await self._number(REPORTS),
            await self._number(DEADLOCKS) - deadlocks,
        )

    async def switch_totals_off(self) -> None:
        """Append no deltas: nothing will be folded."""
        for relation in ("usage_events", "usage_reports"):
            await self._ledger.execute(f"ALTER TABLE {relation} DISABLE TRIGGER USER")

    async def totals(self) -> tuple[int, int]:
        """Return how many runs and how much of the reported amounts are folded."""
        return await self._number(FOLDED_RUNS), await self._number(FOLDED_AMOUNTS)

    async def _until_done(self, count: int) -> None:
        deadline = time.monotonic() + self._patience
        while (done := await self._done()) < count:
            if time.monotonic() > deadline:
                text = f"{done} of {count} events reached {self._chain.end} in {self._patience:.0f}"
                raise TimeoutError(f"{text} s; load average {load_average()}")
            for service in self._platform.services.values():
                service.check()
            await asyncio.sleep(POLL_SECONDS)

    async def _done(self) -> int:
        if self._chain.end == "the ledger":
            return await self._number(RECORDED)
        if self._chain.end == "Stripe":
            return sum((await self._counted()).values())
        return await self._number(RELAYED)

    async def _check(self, count: int) -> None:
        """Compare what was recorded, reported and counted, customer by customer."""
        if (recorded := await self._number(RECORDED)) != count:
            raise InexactError(f"{recorded} of {count} events are in the ledger")
        if self._chain.end == "the ledger":
            return
        if (relayed := await self._number(RELAYED)) != count:
            raise InexactError(f"the reports hold {relayed} of {count} events")
        if self._chain.end == "Stripe":
            await asyncio.sleep(QUIET_SECONDS)
            rows = await self._ledger.fetch(OF_CUSTOMERS)
            wrong = dict(rows).items() ^ (await self._counted()).items()
            if wrong:
                raise InexactError(f"Stripe counted another sum for {len(dict(wrong))} customers")
        else:
            queued = await self._platform.vhost.depth(USAGE_RECORDED_QUEUE)
            if queued != (made := await self._number(REPORTS)):
                raise InexactError(f"{queued} of {made} reports are queued")

    async def _counted(self) -> dict[str, int]:
        async with self._platform.stripe() as stripe:
            return {each["customer"]: int(each["value"]) for each in await stripe.sums()}

    async def _number(self, query: str) -> int:
        return int(await self._ledger.fetchval(query))

    async def _moment(self) -> Moment:
        return Moment.now(await self._number(RECORDED), dict(self._parts()))

    def _parts(self) -> Iterator[tuple[str, Sequence[int]]]:
        running = self._platform.services.items()
        for part in (INGEST, REPORTER):
            yield part, [s.pid for name, s in running if s.pid and name.startswith(part)]
        yield from self._servers.parts.items()
        emulator = self._platform.emulator
        yield "emulator", [emulator.pid] if emulator and emulator.pid else []


@asynccontextmanager
async def prepared(servers: Servers, chain: Chain, patience: float) -> AsyncIterator[Run]:
    """Make databases and a vhost for one run; delete them at the end."""
    settings = {
        "LOG_LEVEL": "WARNING",
        "REPORT_WINDOW_SECONDS": str(chain.window),
        "STRIPE_MAX_CALLS_PER_SECOND": CALLS_PER_SECOND,
    }
    logs = Path(tempfile.mkdtemp(dir=servers.directory))
    async with standalone_platform(
        servers.broker, servers.postgres, logs, settings, MODULES
    ) as platform:
        ledger = await asyncpg.connect(servers.postgres.superuser_url, database=LEDGER)
        try:
            await ledger.execute(DETECT_DEADLOCKS)
            yield Run(chain, platform, servers, ledger, patience)
        finally:
            await ledger.close()
