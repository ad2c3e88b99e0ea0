"""The SQL of subscriptions: what was fetched is stored by compare-and-set on the revision."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.storage.reader import AnyRow
from customer_provisioner.storage.statements import LOCK_CUSTOMER
from customer_provisioner.subscriptions import (
    Item,
    PlanInUse,
    Snapshot,
    Subscription,
    SubscriptionCounts,
)
from nexus_contracts.subscription_changed import RUNNING
from nexus_database import Database

_SNAPSHOT: Final = tuple(field.name for field in fields(Snapshot))

_COLUMNS: Final = ", ".join(
    ("subscription_id", "account_id", "revision", *_SNAPSHOT, "plan_since", "as_of")
)

_SELECT: Final = f"SELECT {_COLUMNS} FROM subscriptions"  # noqa: S608 - names of ours, no values

_FIND: Final = text(f"{_SELECT} WHERE subscription_id = ANY(:subscription_ids)")

_OF_ACCOUNT: Final = text(f"{_SELECT} WHERE account_id = :account_id ORDER BY subscription_id")

_OF_CUSTOMER: Final = text("""
SELECT subscription_id FROM subscriptions WHERE stripe_customer_id = :customer_id
""")

# The account whose customer it is, or was in an earlier generation.
_ACCOUNT: Final = """
coalesce(
    (SELECT user_id FROM user_profiles WHERE stripe_customer_id = :stripe_customer_id),
    (SELECT user_id FROM provisioning_steps
      WHERE step = 'reprovision_asked' AND detail = :stripe_customer_id LIMIT 1))"""

_SET: Final = ", ".join(
    f"{name} = :{name}" for name in ("revision", *_SNAPSHOT, "plan_since", "as_of")
).replace("= :items", "= CAST(:items AS jsonb)")

_UPDATE: Final = text(f"""
UPDATE subscriptions SET account_id = coalesce({_ACCOUNT}, account_id), {_SET}
 WHERE subscription_id = :subscription_id AND revision = :expected
RETURNING account_id
""")  # noqa: S608 - names of ours, no values

_INSERT: Final = text(f"""
INSERT INTO subscriptions ({_COLUMNS})
VALUES (:subscription_id, {_ACCOUNT}, :revision, {
    ", ".join(f":{name}" for name in _SNAPSHOT).replace(":items", "CAST(:items AS jsonb)")
}, :plan_since, :as_of)
ON CONFLICT DO NOTHING
RETURNING account_id
""")  # noqa: S608 - names of ours, no values

_UNANNOUNCED: Final = text(f"""
{_SELECT}
 WHERE announced_revision < revision AND account_id IS NOT NULL
   AND (subscription_id, revision) NOT IN (
       SELECT * FROM unnest(CAST(:subscription_ids AS text[]), CAST(:revisions AS bigint[])))
 ORDER BY as_of LIMIT :limit
""")  # noqa: S608 - names of ours, no values

_ANNOUNCED_SINCE: Final = text(f"""
{_SELECT}
 WHERE subscription_id > :after AND account_id IS NOT NULL
   AND (announced_revision < revision OR announced_at >= :since)
 ORDER BY subscription_id LIMIT :limit
""")

_MARK: Final = text("""
UPDATE subscriptions s SET announced_revision = m.revision, announced_at = :now
  FROM unnest(CAST(:subscription_ids AS text[]), CAST(:revisions AS bigint[]))
       AS m (subscription_id, revision)
 WHERE s.subscription_id = m.subscription_id AND s.announced_revision < m.revision
""")

_PLANS_IN_USE: Final = text("""
SELECT plan_type, count(DISTINCT subscription_id),
       coalesce(array_agg(DISTINCT item ->> 'lookup_key')
                FILTER (WHERE item ->> 'lookup_key' IS NOT NULL), '{}')
  FROM subscriptions LEFT JOIN LATERAL jsonb_array_elements(items) item ON true
 WHERE plan_type IS NOT NULL AND ended_at IS NULL
 GROUP BY plan_type ORDER BY plan_type
""")

_COUNTS: Final = text("""
SELECT (SELECT count(*) FROM subscriptions
         WHERE account_id IS NULL AND plan_type IS NOT NULL AND ended_at IS NULL
           AND status = ANY(:running)) AS without_account,
       (SELECT count(*) FROM subscriptions
         WHERE plan_type IS NULL AND ended_at IS NULL AND account_id IS NOT NULL
           AND status = ANY(:running)) AS without_plan
""")


class SubscriptionStore:
    """Keeps what was fetched of subscriptions.

    Every method raises:
        DatabaseUnavailableError: the database can't be used.
        RowsBusyError: another transaction holds the row.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, subscription_ids: Sequence[str]) -> dict[str, Subscription]:
        """Return those of the subscriptions that are stored."""
        found = await self._read(_FIND, subscription_ids=list(subscription_ids))
        return {each.subscription_id: each for each in found}

    async def of_account(self, account_id: UUID) -> Sequence[Subscription]:
        """Return the subscriptions of an account, ended ones too."""
        return await self._read(_OF_ACCOUNT, account_id=account_id)

    async def of_customer(self, customer_id: str) -> Sequence[str]:
        """Return the ids of the stored subscriptions of a customer at Stripe."""

        async def work(connection: AsyncConnection) -> Sequence[str]:
            return (await connection.scalars(_OF_CUSTOMER, {"customer_id": customer_id})).all()

        return await self._database.run(work)

    async def store(self, subscription: Subscription, *, expected: int) -> bool:
        """Store what was fetched, unless another fetch was stored since ``expected`` was read.

        Args:
            subscription: What was fetched; its account is the one whose customer it names.
            expected: The revision that was read before the fetch; 0 if there was none.

        Returns:
            Whether it was stored. If not, what was fetched may be older than what is stored.
        """
        values = _values(subscription) | {"expected": expected}
        customer_id = subscription.snapshot.stripe_customer_id

        async def work(connection: AsyncConnection) -> bool:
            # Or a customer that is stored meanwhile would not see this subscription, nor this it.
            await connection.execute(LOCK_CUSTOMER, {"customer_id": customer_id})
            statement = _UPDATE if expected else _INSERT
            return (await connection.execute(statement, values)).one_or_none() is not None

        return await self._database.run(work)

    async def unannounced(
        self, limit: int, aside: Sequence[Subscription] = ()
    ) -> Sequence[Subscription]:
        """Return subscriptions whose last revision is not announced yet, oldest first.

        Those ``aside`` are left out, in these revisions.
        """
        return await self._read(_UNANNOUNCED, limit=limit, **_keys(aside))

    async def announced_since(
        self, since: datetime, after: Subscription | None, limit: int
    ) -> Sequence[Subscription]:
        """Return a page of subscriptions announced since a time, or not yet.

        They are ordered by id; ``after`` is the last one of the page before.
        """
        last = "" if after is None else after.subscription_id
        return await self._read(_ANNOUNCED_SINCE, since=since, after=last, limit=limit)

    async def mark_announced(self, announced: Sequence[Subscription], now: datetime) -> int:
        """Mark these revisions as announced; return how many were marked."""
        values = {**_keys(announced), "now": now}

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(_MARK, values)).rowcount

        return await self._database.run(work)

    async def plans_in_use(self) -> Sequence[PlanInUse]:
        """Return the plans of subscriptions that have not ended."""

        async def work(connection: AsyncConnection) -> Sequence[PlanInUse]:
            return [PlanInUse(*row) for row in await connection.execute(_PLANS_IN_USE)]

        return await self._database.run(work)

    async def counts(self) -> SubscriptionCounts:
        """Count running subscriptions that lack an account or a plan."""

        async def work(connection: AsyncConnection) -> SubscriptionCounts:
            values = {"running": sorted(RUNNING)}
            return SubscriptionCounts(*(await connection.execute(_COUNTS, values)).one())

        return await self._database.run(work)

    async def _read(self, query: TextClause, **values: Any) -> Sequence[Subscription]:
        async def work(connection: AsyncConnection) -> Sequence[Subscription]:
            return [_subscription(row) for row in await connection.execute(query, values)]

        return await self._database.run(work)


def _keys(subscriptions: Sequence[Subscription]) -> dict[str, Any]:
    return {
        "subscription_ids": [each.subscription_id for each in subscriptions],
        "revisions": [each.revision for each in subscriptions],
    }


def _values(subscription: Subscription) -> dict[str, Any]:
    values = asdict(subscription)
    return {**values, **values["snapshot"], "items": json.dumps(values["snapshot"]["items"])}


def _subscription(row: AnyRow) -> Subscription:
    values = dict(zip(row._fields, row, strict=True))
    snapshot = {name: values.pop(name) for name in _SNAPSHOT}
    items = tuple(Item(**item) for item in snapshot["items"])
    return Subscription(snapshot=Snapshot(**{**snapshot, "items": items}), **values)
