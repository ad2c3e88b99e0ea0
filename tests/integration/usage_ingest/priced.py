"""A ledger with plans: what a test does to it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from nexus_database import Database
from nexus_plans import Plans
from nexus_plans.reading import read
from support.events import provisioned, second_version, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.late import LatePricing, LateReadings
from usage_ingest.storage.ledger import Ledger, Result

FILE = """
version: 1
unknown_users: deny
without_subscription: free
default_meter: runs
meters:
  premium: {display_name: Premium}
  micros: {display_name: Cost}
  tools: {display_name: Unique tools}
routes:
  premium: {servers: [browser], gated: true}
  tokens: {priced: models}
plans:
  free:
    display_name: Free
    meters: {"@premium": premium, "@tokens": micros}
    markup_percent: {"@tokens": 50}
  team:
    display_name: Team
    premium: [premium]
    meters: {"@premium": runs, "@tokens": micros}
    unique_tools_meter: tools
models:
  known:
    cached_tokens: part
    prices:
      - {from: 2020-01-01, input: 1000000, output: 2000000, cached: 500000, source: a list}
"""

ADDED = """
  new:
    cached_tokens: addition
    prices:
      - {from: 2020-01-01, input: 3000000, output: 3000000, cached: 1000000, source: another list}
"""

PLANS = read(FILE.encode(), "plans.yaml")
FILE_WITH_NEW = FILE + ADDED.lstrip("\n")
WITH_NEW = read(FILE_WITH_NEW.encode(), "plans.yaml")

NOW = datetime.now(UTC)
MINUTE = NOW.replace(second=0, microsecond=0) - timedelta(minutes=10)
USER = UUID(int=1)


class PricedLedger:
    """A ledger whose rules have plans."""

    def __init__(self, database: Database, plans: Plans = PLANS) -> None:
        self.database = database
        self.plans = plans

    async def customer(self, account: UUID = USER, name: str = "cus_1") -> None:
        """Announce an account's customer."""
        await Accounts(self.database).apply(provisioned(account, name).data)

    async def subscribe(
        self, plan: str, account: UUID = USER, period: tuple[datetime, datetime] | None = None
    ) -> None:
        """Give an account a plan, for all times, and a billing period."""
        begins, ends = period or (None, None)
        await self.run_sql(
            "INSERT INTO account_plans VALUES (:account, '-infinity', :plan)"
            " ON CONFLICT (account_id, since) DO UPDATE SET plan_type = :plan",
            account=account,
            plan=plan,
        )
        await self.run_sql(
            "INSERT INTO account_subscriptions (subscription_id, account_id, stripe_customer_id,"
            " revision, plan_type, status, items, period_start, period_end, as_of)"
            " VALUES (:id, :account, 'cus_1', 1, :plan, 'active', '[]', :begins, :ends, now())"
            " ON CONFLICT (subscription_id) DO UPDATE"
            " SET period_start = :begins, period_end = :ends",
            id=f"sub_{account}",
            account=account,
            plan=plan,
            begins=begins,
            ends=ends,
        )
        await self.run_sql(
            "INSERT INTO subscription_periods"
            " SELECT * FROM (VALUES (:id, CAST(:begins AS timestamptz),"
            " CAST(:ends AS timestamptz), CAST('{}' AS text[]))) p(id, begins, ends, meters)"
            " WHERE ends IS NOT NULL"
            " ON CONFLICT (subscription_id, period_start)"
            " DO UPDATE SET period_end = excluded.period_end",
            id=f"sub_{account}",
            begins=begins,
            ends=ends,
        )

    def tokens(self, model: str | None, second: float = 0, **fields: Any) -> ToolRun:
        """Return a run that used a model."""
        at = fields.pop("time", MINUTE + timedelta(seconds=second))
        user = fields.pop("user", USER)
        details = {"model": model, "input_tokens": 100, "output_tokens": 10, "cached_tokens": 20}
        details |= {name: fields.pop(name) for name in list(fields) if name in details}
        return second_version(tool_run(user, time=at, **fields), **details)

    async def record(
        self, *runs: ToolRun, plans: Plans | None = None, now: datetime = NOW
    ) -> Sequence[Result]:
        """Record runs in one batch."""
        rules = BillingRules("runs", None, frozenset({"succeeded"}), plans or self.plans)
        return await Ledger(self.database).record([Entry.of(run, rules, now) for run in runs])

    def claims(
        self,
        plans: Plans | None = None,
        dimensions: Sequence[str] = (),
        live_from: datetime | None = None,
    ) -> Claims:
        """Return what claims, by the plans."""
        used = plans or self.plans
        return Claims(
            self.database,
            window=timedelta(seconds=10),
            dimensions=dimensions,
            charges=used.charges(),
            routes=BillingRules("runs", None, frozenset(), used).routes,
            unique_meters=used.unique_tools_meters(),
            live_from=live_from,
        )

    async def price_late(self, plans: Plans = WITH_NEW, now: datetime = NOW) -> LatePricing:
        """Price what lacks a price."""
        return await LateReadings(self.database, plans).price(now)

    async def run_sql(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows if it has any."""
        result = await self.database.run(lambda c: c.execute(text(query), values))
        return [tuple(row) for row in result] if result.returns_rows else []

    async def reports(self) -> list[tuple[Any, ...]]:
        """Return meter, value, number of events and lateness of each report."""
        return await self.run_sql(
            "SELECT meter, value, event_count, late FROM usage_reports ORDER BY meter, late, value"
        )
