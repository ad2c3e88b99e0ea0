"""The accounts that usage is billed to, and the sweep of usage that waits for them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CustomerProvisioned
from nexus_database import Database
from usage_ingest.columns import NEW_ID
from usage_ingest.metering import OLDEST_REPORTABLE

MOST_SWEPT: Final = 10_000
"""Events, or reports, of one transaction. Millions may wait for one user, and one statement for all
of them would not end within its time limit."""

MOST_ACCOUNTS: Final = 2_000
"""Accounts that one sweep looks at: as many as an upgrade leaves take some tens of sweeps."""

APPLY: Final = text("""
INSERT INTO billing_accounts (user_id, stripe_customer_id, generation)
VALUES (:user_id, :stripe_customer_id, :generation)
ON CONFLICT (user_id) DO UPDATE
   SET stripe_customer_id = excluded.stripe_customer_id,
       generation = excluded.generation,
       updated_at = now()
 WHERE billing_accounts.generation < excluded.generation
RETURNING user_id
""")

# Rows that another transaction holds are skipped: it moves them on. Rows that are locked here are
# found again by their place, which is theirs meanwhile. By a key the planner may read the whole
# table for them, if its statistics are from a time when much was unfinished.
RELEASE_USER: Final = text("""
UPDATE usage_events SET billing_state = 'due'
 WHERE ctid = ANY(ARRAY(SELECT ctid FROM usage_events
                         WHERE billing_state = 'waiting' AND user_id = :user_id
                         LIMIT :most FOR UPDATE SKIP LOCKED))
""")

# Of new customers first. The inner limit makes it a look-up for each account, whatever the planner
# expects of the accounts' number: the waiting usage of other users is not read.
RELEASE: Final = text("""
UPDATE usage_events SET billing_state = 'due'
 WHERE ctid = ANY(ARRAY(
       SELECT e.place
         FROM (SELECT user_id FROM billing_accounts
                WHERE NOT released ORDER BY seen_at NULLS FIRST LIMIT :accounts) a
        CROSS JOIN LATERAL (SELECT ctid AS place FROM usage_events
                             WHERE billing_state = 'waiting' AND user_id = a.user_id
                             LIMIT :most FOR UPDATE SKIP LOCKED) e
        LIMIT :most))
""")

# A batch that was recorded while the account was stored may not have seen it, and adds waiting
# usage when it commits. So an account is first marked as seen, at a time when every new statement
# sees it. It is released for good once all open transactions began after that time, and nothing of
# the user waits. The transactions are read by a statement before: what is no longer among them then
# is seen by this one. The times of other roles' transactions are hidden, and without
# `track_activities` all are: those that may record usage count as open, for an hour at most.
OPEN_SINCE: Final = text("""
SELECT min(coalesce(xact_start, now() - interval '1 hour'))
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND (xact_start IS NOT NULL
        OR (coalesce(backend_xid, backend_xmin) IS NOT NULL
            AND has_table_privilege(usesysid, 'usage_events', 'INSERT')))
""")

MARK_ACCOUNTS: Final = text("""
UPDATE billing_accounts a
   SET seen_at = coalesce(a.seen_at, clock_timestamp()), released = a.seen_at IS NOT NULL
  FROM (SELECT user_id FROM billing_accounts
         WHERE NOT released ORDER BY seen_at NULLS FIRST LIMIT :accounts
           FOR UPDATE SKIP LOCKED) l
 WHERE a.user_id = l.user_id
   AND (a.seen_at IS NULL
        OR (a.seen_at < :open_since
            AND NOT EXISTS (SELECT FROM usage_events e
                             WHERE e.billing_state = 'waiting' AND e.user_id = a.user_id)))
""")

# Each half is in the order of a partial index, which the planner then prefers to the whole table,
# also while the table's statistics are from a time when most of it was unfinished.
EXPIRE: Final = text("""
WITH waiting AS (
    SELECT ctid AS place FROM usage_events
     WHERE billing_state = 'waiting' AND occurred_at <= :oldest
     ORDER BY occurred_at LIMIT :most FOR UPDATE SKIP LOCKED
), due AS (
    SELECT ctid AS place FROM usage_events
     WHERE billing_state = 'due' AND occurred_at <= :oldest
     ORDER BY occurred_at LIMIT :most FOR UPDATE SKIP LOCKED
)
UPDATE usage_events SET billing_state = 'expired'
 WHERE ctid = ANY(ARRAY(SELECT place FROM waiting UNION ALL SELECT place FROM due))
""")

# By the few users whose customer was replaced: refused reports of others may be any number.
SUPERSEDE: Final = text("""
UPDATE usage_reports SET state = 'superseded'
 WHERE ctid = ANY(ARRAY(
       SELECT r.place
         FROM billing_accounts a
        CROSS JOIN LATERAL (
              SELECT ctid AS place FROM usage_reports
               WHERE user_id = a.user_id AND state = 'rejected' AND reason = 'no_such_customer'
                 AND NOT ever_unknown AND generation < a.generation AND occurred_at > :oldest
               LIMIT :most FOR UPDATE SKIP LOCKED) r
        WHERE a.generation > 1
        LIMIT :most))
RETURNING report_id
""")

REPLACE: Final = text(f"""
INSERT INTO usage_reports (
    report_id, identifier, claim_id, user_id, stripe_customer_id, generation, meter, value,
    dimensions, occurred_at, event_count, traceparent)
SELECT n.id, 'nexus:' || n.id, r.claim_id, r.user_id, a.stripe_customer_id, a.generation, r.meter,
       r.value, r.dimensions, r.occurred_at, r.event_count, r.traceparent
  FROM usage_reports r
  JOIN billing_accounts a USING (user_id)
 CROSS JOIN LATERAL (SELECT {NEW_ID} AS id WHERE r.report_id IS NOT NULL) n
 WHERE r.report_id = ANY(CAST(:ids AS uuid[]))
""")  # noqa: S608 - of this project's constants


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: events released or expired, and reports superseded.

    With ``more`` it may have left some of them to the next sweep.
    """

    released: int
    expired: int
    superseded: int
    more: bool


class Accounts:
    """Stores the customers of `customer.provisioned`, and moves on what waited for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, provisioned: CustomerProvisioned, *, most: int = MOST_SWEPT) -> bool:
        """Store the customer and make up to ``most`` waiting events of the user due.

        The sweep releases the others. Return whether the customer's generation is a newer one; if
        not, the stored customer stays.

        Raises:
            RowsBusyError: another transaction holds the account; nothing was stored.
            DatabaseUnavailableError: nothing was stored.
        """

        async def work(connection: AsyncConnection) -> bool:
            applied = await connection.execute(APPLY, provisioned.model_dump())
            waiting = {"user_id": provisioned.user_id, "most": most}
            await connection.execute(RELEASE_USER, waiting)
            return applied.first() is not None

        return await self._database.run(work)

    async def sweep(
        self, now: datetime, *, most: int = MOST_SWEPT, most_accounts: int = MOST_ACCOUNTS
    ) -> Swept:
        """Release, expire and supersede up to ``most`` of what no other transaction moves on.

        A batch that saw no account and a provisioning that saw no events may commit at the same
        time: only the sweep finds that usage. It looks at an account until no such batch is left.
        Reports that were refused because their customer was deleted are replaced by reports to the
        customer of a higher generation, unless the outcome of an attempt was ever unknown: such a
        report may have been counted.

        Raises:
            DatabaseUnavailableError: nothing was moved.
        """
        oldest = {"oldest": now - OLDEST_REPORTABLE, "most": most}
        accounts = {"accounts": most_accounts}

        async def work(connection: AsyncConnection) -> Swept:
            released = await connection.execute(RELEASE, {**accounts, "most": most})
            expired = await connection.execute(EXPIRE, oldest)
            refused: list[UUID] = [
                row.report_id for row in await connection.execute(SUPERSEDE, oldest)
            ]
            if refused:
                await connection.execute(REPLACE, {"ids": refused})
            since = (await connection.execute(OPEN_SINCE)).scalar_one()
            marked = await connection.execute(MARK_ACCOUNTS, {**accounts, "open_since": since})
            moved = (released.rowcount, expired.rowcount, len(refused))
            more = max(moved) >= most or marked.rowcount == most_accounts
            return Swept(*moved, more=more)

        return await self._database.run(work)
