"""A copy of the accounts' subscriptions, and the accounts' plans that follow from them."""

from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import SubscriptionChanged
from nexus_database import Database
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.periods import ended_early
from usage_ingest.plan_history import Best, PlanSince, account_history, after_change, runs
from usage_ingest.thresholds import touched

ADVISORY_LOCK: Final = 7_203_513
"""Any fixed number: changes follow each other, as each makes plans anew. They are rare."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")

KNOWN: Final = text("""
SELECT account_id, plan_type, revision FROM account_subscriptions
 WHERE subscription_id = :subscription_id
""")

KEEP: Final = text("""
INSERT INTO account_subscriptions (
    subscription_id, account_id, stripe_customer_id, revision, plan_type, status, seats, items,
    period_start, period_end, trial_end, cancel_at, ended_at, as_of)
VALUES (
    :subscription_id, :account_id, :stripe_customer_id, :revision, :plan_type, :status, :seats,
    CAST(:items AS jsonb), :period_start, :period_end, :trial_end, :cancel_at, :ended_at, :as_of)
ON CONFLICT (subscription_id) DO UPDATE
   SET account_id = excluded.account_id, stripe_customer_id = excluded.stripe_customer_id,
       revision = excluded.revision, plan_type = excluded.plan_type, status = excluded.status,
       seats = excluded.seats, items = excluded.items, period_start = excluded.period_start,
       period_end = excluded.period_end, trial_end = excluded.trial_end,
       cancel_at = excluded.cancel_at, ended_at = excluded.ended_at, as_of = excluded.as_of
 WHERE account_subscriptions.revision < excluded.revision
RETURNING subscription_id
""")

HISTORY: Final = text("""
SELECT since, plan_type FROM subscription_plans
 WHERE subscription_id = :subscription_id ORDER BY since
""")

HISTORIES: Final = text("""
SELECT subscription_id, p.since, p.plan_type
  FROM account_subscriptions s JOIN subscription_plans p USING (subscription_id)
 WHERE s.account_id = :account_id
 ORDER BY subscription_id, p.since
""")

FORGET_SUBSCRIPTION: Final = text(
    "DELETE FROM subscription_plans WHERE subscription_id = :subscription_id"
)
FORGET_ACCOUNT: Final = text("DELETE FROM account_plans WHERE account_id = :account_id")

SPANS: Final = (
    Column("since", "timestamptz", "since"),
    Column("plan_type", "text", "plan_type"),
)
STORE_SUBSCRIPTION: Final = text(f"""
INSERT INTO subscription_plans (subscription_id, {names(SPANS)})
SELECT :subscription_id, {selected(SPANS)} FROM {rows(SPANS)}
""")  # noqa: S608 - made of names in this program
STORE_ACCOUNT: Final = text(f"""
INSERT INTO account_plans (account_id, {names(SPANS)})
SELECT :account_id, {selected(SPANS)} FROM {rows(SPANS)}
""")  # noqa: S608 - likewise

# A period ends where the next one begins, or where the subscription no longer runs.
END_PERIODS: Final = text("""
UPDATE subscription_periods SET period_end = greatest(period_start, :time)
 WHERE subscription_id = :subscription_id AND period_end > :time
""")
STORE_PERIOD: Final = text("""
INSERT INTO subscription_periods (subscription_id, period_start, period_end, meters)
VALUES (:subscription_id, :period_start, :period_end, CAST(:meters AS text[]))
ON CONFLICT (subscription_id, period_start) DO UPDATE
   SET period_end = excluded.period_end, meters = excluded.meters
""")
# Heard of after its end, a subscription had its last period all the same.
STORE_LAST_PERIOD: Final = text("""
INSERT INTO subscription_periods (subscription_id, period_start, period_end, meters, ended_early)
VALUES (:subscription_id, :period_start, :period_end, CAST(:meters AS text[]), :ended_early)
ON CONFLICT (subscription_id, period_start) DO UPDATE SET ended_early = excluded.ended_early
""")

# With another plan the account has other limits, which it may have passed already.
TOUCH: Final = text(
    touched(
        "SELECT account_id, meter, now() AS hour FROM hourly_amounts WHERE account_id = :account_id"
    )
)


class Subscriptions:
    """Stores what `subscription.changed` says; ``best`` chooses of several plans of an account."""

    def __init__(self, database: Database, *, best: Best) -> None:
        self._database = database
        self._best = best

    async def apply(self, change: SubscriptionChanged) -> bool:
        """Store a change, and make the account's plans anew; return ``False`` for an older one.

        A repetition changes nothing.

        Raises:
            RowsBusyError: another transaction changes the account; nothing was stored.
            DatabaseUnavailableError: nothing was stored.
        """
        subscription = {"subscription_id": change.subscription_id}

        async def work(connection: AsyncConnection) -> bool:
            await connection.execute(LOCK, {"key": ADVISORY_LOCK})
            known = (await connection.execute(KNOWN, subscription)).one_or_none()
            if (await connection.execute(KEEP, _row(change))).first() is None:
                return known is not None and bool(known.revision == change.revision)

            before = [PlanSince(*row) for row in await connection.execute(HISTORY, subscription)]
            history = after_change(before, known.plan_type if known else None, change)
            await connection.execute(FORGET_SUBSCRIPTION, subscription)
            await connection.execute(STORE_SUBSCRIPTION, subscription | arrays(SPANS, history))

            await _store_period(connection, change)
            for account in {change.account_id, *([known.account_id] if known else [])}:
                await self._store_plans(connection, account)
            return True

        return await self._database.run(work)

    async def _store_plans(self, connection: AsyncConnection, account_id: UUID) -> None:
        """Make an account's plans anew from its subscriptions."""
        account = {"account_id": account_id}
        histories: dict[str, list[PlanSince]] = {}
        for row in await connection.execute(HISTORIES, account):
            span = PlanSince(row.since, row.plan_type)
            histories.setdefault(row.subscription_id, []).append(span)
        plans = account_history(histories.values(), self._best)
        await connection.execute(FORGET_ACCOUNT, account)
        await connection.execute(STORE_ACCOUNT, account | arrays(SPANS, plans))
        await connection.execute(TOUCH, account)


async def _store_period(connection: AsyncConnection, change: SubscriptionChanged) -> None:
    """Keep the period that the subscription is in, or end it when it no longer runs."""
    begins, ends = change.period_start, change.period_end
    running = runs(change) and begins is not None and ends is not None and begins < ends
    meters = sorted({item.meter for item in change.items if item.meter is not None})
    of = {"subscription_id": change.subscription_id, "period_start": begins, "meters": meters}
    ended = change.ended_at or change.as_of
    await connection.execute(END_PERIODS, {**of, "time": begins if running else ended})
    if running:
        await connection.execute(STORE_PERIOD, {**of, "period_end": ends})
    elif change.status == "canceled" and begins is not None and begins < ended:
        last = {**of, "period_end": ended, "ended_early": ended_early(change)}
        await connection.execute(STORE_LAST_PERIOD, last)


def _row(change: SubscriptionChanged) -> dict[str, Any]:
    return {
        **change.model_dump(exclude={"items", "plan_since"}),
        "items": to_json(change.items).decode(),
    }
