"""A ledger that a test fills with what readers of usage see."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import TextClause, text

from nexus_database import Database

RUNS: Final = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, token_count, readings, occurred_at, billing_state,
                          claim_id)
SELECT gen_random_uuid(), 'test', 1, decode(repeat('00', 32), 'hex'), :user_id, :server_id,
       :tool_name, 'hub', 'succeeded', :tokens, CAST(:readings AS jsonb), :occurred_at, :state,
       CASE WHEN :state = 'claimed' THEN gen_random_uuid() END
  FROM generate_series(1, :number)
""")

REPORT: Final = text("""
INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id, generation,
                           meter, value, dimensions, occurred_at, event_count, state, reason)
VALUES (gen_random_uuid(), gen_random_uuid(), :identifier, :account_id, 'cus_test', 1, :meter,
        :value, '{}', :occurred_at, 1, :state, :reason)
""")

ASSIGN: Final = text("""
INSERT INTO account_assignments (user_id, since, revision, account_id)
VALUES (:user_id, :since, 1, :account_id)
""")

SUBSCRIBE: Final = text("""
INSERT INTO account_subscriptions (subscription_id, account_id, stripe_customer_id, revision,
                                   plan_type, status, seats, items, period_start, period_end, as_of)
VALUES (:subscription_id, :account_id, 'cus_test', 1, :plan_type, 'active', :seats, '[]', :start,
        :end, now())
""")

PERIOD: Final = text("""
INSERT INTO subscription_periods (subscription_id, period_start, period_end, meters)
VALUES (:subscription_id, :start, :end, '{}')
""")

PLAN: Final = text("""
INSERT INTO account_plans (account_id, since, plan_type) VALUES (:account_id, :since, :plan_type)
""")

METER: Final = "tool_call_executed"


def hours_ago(hours: float) -> datetime:
    """Return a time in the past."""
    return datetime.now(UTC) - timedelta(hours=hours)


def lately() -> datetime:
    """Return a time in the past of this UTC month, an hour ago if there was one."""
    now = datetime.now(UTC)
    return max(hours_ago(1), now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))


class UsageLedger:
    """Writes facts as the services do, without them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def runs(
        self,
        user: UUID,
        number: int = 1,
        *,
        at: datetime | None = None,
        tool: tuple[str, str] = ("files", "read"),
        tokens: int | None = None,
        state: str = "claimed",
        readings: Mapping[str, int] | None = None,
    ) -> None:
        """Record runs of a tool."""
        await self._write(
            RUNS,
            user_id=user,
            number=number,
            occurred_at=at or lately(),
            server_id=tool[0],
            tool_name=tool[1],
            tokens=tokens,
            state=state,
            readings=json.dumps(readings or {METER: 1}),
        )

    async def report(
        self,
        account: UUID,
        value: int,
        *,
        at: datetime | None = None,
        meter: str = METER,
        state: str = "reported",
        reason: str | None = None,
    ) -> None:
        """Report an amount of an account."""
        await self._write(
            REPORT,
            identifier=str(uuid4()),
            account_id=account,
            value=value,
            occurred_at=at or lately(),
            meter=meter,
            state=state,
            reason=reason,
        )

    async def assign(self, user: UUID, account: UUID, since: datetime | None = None) -> None:
        """Have an account pay for a user from a time on."""
        await self._write(ASSIGN, user_id=user, account_id=account, since=since or hours_ago(1000))

    async def subscribe(
        self,
        account: UUID,
        plan: str,
        *,
        period: tuple[datetime, datetime] | None = None,
        seats: int | None = None,
    ) -> None:
        """Give an account a running subscription and its plan."""
        start, end = period or (hours_ago(240), hours_ago(-240))
        its = {"subscription_id": f"sub_{uuid4().hex}", "start": start, "end": end}
        await self._write(SUBSCRIBE, **its, account_id=account, plan_type=plan, seats=seats)
        await self._write(PERIOD, **its)
        await self._write(PLAN, account_id=account, since=start, plan_type=plan)

    async def execute(self, statement: str, **values: object) -> None:
        """Execute any statement as the owner."""
        await self._write(text(statement), **values)

    async def _write(self, statement: TextClause, **values: object) -> None:
        await self._database.run(lambda connection: connection.execute(statement, values))
