"""Whatever happens in whatever order, each reading is charged once, by the plan of its time."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from integration.usage_ingest.priced import MINUTE, NOW, PLANS, WITH_NEW, PricedLedger
from nexus_contracts import UserAssigned
from nexus_database import Database, RowsBusyError
from usage_ingest.metering import ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.totals import PARTS, Totals

USERS = tuple(UUID(int=number) for number in (1, 2, 3, 4))
ACCOUNTS = (*USERS, UUID(int=101))
ROUNDS = 15
LATER = NOW + timedelta(minutes=2)

BETWEEN = """
SELECT s, u, a, m, amount_between(a, m, s, u), sum(value)
  FROM (SELECT DISTINCT user_id, meter FROM usage_reports) k(a, m)
 CROSS JOIN (SELECT DISTINCT occurred_at FROM usage_reports) f(s)
 CROSS JOIN LATERAL (
       SELECT s + make_interval(secs => n) FROM (VALUES (0.000001), (61), (4000)) v(n)) t(u)
  LEFT JOIN usage_reports r
    ON user_id = a AND r.meter = m AND r.occurred_at >= s AND r.occurred_at < u
 GROUP BY s, u, a, m
HAVING amount_between(a, m, s, u) <> coalesce(sum(value), 0)
"""
"""Periods of which the totals by hour with their exact edges have another sum than the reports."""


class World:
    """What was done to a ledger, and what follows from it for each claim."""

    def __init__(self, ledger: PricedLedger, seed: int) -> None:
        self.ledger = ledger
        self.rng = random.Random(seed)  # noqa: S311 - a test's choices, the same each time
        self.runs: dict[UUID, ToolRun] = {}
        self.assigned: dict[UUID, list[tuple[datetime, int, UUID]]] = defaultdict(list)
        self.plans: dict[UUID, list[tuple[datetime, str | None]]] = defaultdict(list)
        self.customers: set[UUID] = set()
        self.charged: defaultdict[UUID, Counter[tuple[UUID, str]]] = defaultdict(Counter)
        self.seen: set[tuple[UUID, str]] = set()
        self.used: set[tuple[UUID, str, str, datetime]] = set()
        self.first_uses: Counter[UUID] = Counter()

    def moment(self) -> datetime:
        """Return any time of the runs."""
        return MINUTE + timedelta(seconds=self.rng.choice((0, 9, 10, 60, 61)))

    async def decide(self) -> None:
        """Assign a user, change a plan or announce a customer; at any time of the past."""
        account, user = self.rng.choice(ACCOUNTS), self.rng.choice(USERS)
        accounts = Accounts(self.ledger.database)
        revision = 1 + sum(map(len, self.assigned.values()))
        match self.rng.randrange(3):
            case 0:
                since = self.moment()
                self.assigned[user].append((since, revision, account))
                event = UserAssigned(
                    user_id=user, account_id=account, since=since, revision=revision
                )
                for _ in range(2):
                    await accounts.assign(event)
            case 1:
                since, plan = self.moment(), self.rng.choice((None, "free", "team", "gone"))
                self.plans[account] = [p for p in self.plans[account] if p[0] != since]
                self.plans[account].append((since, plan))
                await self.ledger.run_sql(
                    "INSERT INTO account_plans VALUES (:account, :since, :plan)"
                    " ON CONFLICT (account_id, since) DO UPDATE SET plan_type = :plan",
                    account=account,
                    since=since,
                    plan=plan,
                )
            case _:
                await self.provide(account)

    async def provide(self, account: UUID) -> None:
        """Announce an account's customer."""
        await self.ledger.customer(account, f"cus_{account.int}")
        self.customers.add(account)

    def batch(self) -> Sequence[ToolRun]:
        """Return new runs, and some again."""
        new = [
            self.ledger.tokens(
                self.rng.choice(("known", "new", None)),
                time=self.moment() + timedelta(seconds=self.rng.randrange(5)),
                user=self.rng.choice(USERS),
                server_id=self.rng.choice(("browser", "own")),
                tool_name=self.rng.choice("ab"),
            )
            for _ in range(5)
        ]
        known = self.rng.sample(sorted(self.runs), min(2, len(self.runs)))
        again = [self.runs[each] for each in known]
        self.runs |= {run.id: run for run in new}
        return [*new, *again]

    async def work(self) -> None:
        """Let several processes do everything at once."""
        ledger, totals = self.ledger, Totals(self.ledger.database)
        claims = (ledger.claims(), ledger.claims())
        file = self.rng.choice((PLANS, WITH_NEW))
        jobs: list[Callable[[], Awaitable[Any]]] = [
            *(partial(ledger.record, *self.batch()) for _ in range(2)),
            *(partial(each.claim, LATER, most=7) for each in claims),
            *(partial(each.claim_late, LATER, most=3) for each in claims),
            *[partial(ledger.price_late, file)] * 2,
            *[partial(totals.fold, most=3)] * 2,
            partial(totals.rebuild, self.rng.choice(PARTS)),
            partial(Accounts(ledger.database).sweep, LATER),
        ]
        self.rng.shuffle(jobs)
        await asyncio.gather(*map(_until_free, jobs))

    async def settle(self) -> None:
        """Let everything come to its end."""
        for account in ACCOUNTS:
            await self.provide(account)
        # What was held back, since the file lacks its plan, is charged by one that it has.
        await self.ledger.run_sql(
            "UPDATE account_plans SET plan_type = 'free' WHERE plan_type = 'gone'"
        )
        await self.ledger.price_late(WITH_NEW)
        while (await Accounts(self.ledger.database).sweep(LATER)).released:
            pass
        while (await self.ledger.claims().claim(LATER)).events:
            pass
        await self.ledger.claims().claim_late(LATER)

    def payer(self, run: ToolRun) -> UUID:
        """Return whose account pays for a run, as known now."""
        known = [each for each in self.assigned[run.data.user_id] if each[0] <= run.time]
        return max(known)[2] if known else run.data.user_id

    def plan(self, account: UUID, at: datetime) -> str:
        """Return an account's plan; one that the file does not have is made the free one."""
        known = [each for each in self.plans[account] if each[0] <= at]
        return "team" if known and max(known, key=lambda p: p[0])[1] == "team" else "free"

    async def charge(self) -> None:
        """Add what was newly claimed, by what is known now."""
        found = await self.ledger.run_sql(
            "SELECT event_id, claim_id, key, value::bigint FROM usage_events,"
            " jsonb_each_text(readings) r(key, value) WHERE claim_id IS NOT NULL UNION ALL "
            "SELECT event_id, claim_id, 'late', value FROM late_readings WHERE claim_id IS NOT NULL"
        )
        for event_id, claim_id, key, value in found:
            if (event_id, key) in self.seen:
                continue
            self.seen.add((event_id, key))
            run = self.runs[event_id]
            account = self.payer(run)
            assert account in self.customers
            team = self.plan(account, run.time) == "team"
            if key in {"@tokens", "late"}:
                meter, amount = "micros", value if team else value * 3 // 2
            else:
                meter, amount = "runs" if team or key == "runs" else "premium", value
                month = run.time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
                use = (account, run.data.server_id, run.data.tool_name, month)
                if team and use not in self.used:
                    self.used.add(use)
                    self.first_uses[account] += 1
            self.charged[claim_id][account, meter] += amount


async def _until_free(job: Callable[[], Awaitable[Any]]) -> None:
    while True:
        try:
            await job()
        except RowsBusyError:
            continue
        return


@pytest.mark.parametrize("seed", range(3))
async def test_each_reading_is_charged_once_by_the_plan_of_its_time(
    database: Database, seed: int
) -> None:
    """Users move, plans change and prices come, while several processes record, claim and fold."""
    world = World(PricedLedger(database), seed)

    for _ in range(ROUNDS):
        await world.decide()
        await world.work()
        await world.charge()
    await world.settle()
    await world.charge()

    reported: defaultdict[UUID, Counter[tuple[UUID, str]]] = defaultdict(Counter)
    first_uses: Counter[UUID] = Counter()
    for claim_id, account, customer, meter, value in await world.ledger.run_sql(
        "SELECT claim_id, user_id, stripe_customer_id, meter, value FROM usage_reports"
    ):
        assert customer == f"cus_{account.int}"
        if meter == "tools":
            first_uses[account] += value
        else:
            reported[claim_id][account, meter] += value
    assert reported == world.charged
    assert first_uses == world.first_uses
    costs = sum(bool(run.data.model_dump()["model"]) for run in world.runs.values())
    assert len(world.seen) == len(world.runs) + costs
    differences: list[Any] = []
    for part in PARTS:
        await Totals(database).compare(part, differences.append)
    assert differences == []
    assert await world.ledger.run_sql(BETWEEN) == []
