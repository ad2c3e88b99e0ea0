"""The accounts that usage is billed to, who is assigned to them, and the sweep of what waits."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_contracts import CustomerProvisioned, UserAssigned
from nexus_database import Database
from usage_ingest.columns import NEW_ID
from usage_ingest.metering import MAX_AGE
from usage_ingest.payers import times_of

MAX_SWEPT: Final = 10_000
"""Events, or reports, of one transaction. Millions may wait for one user, and one statement for all
of them would not end within its time limit."""

MAX_ACCOUNTS: Final = 2_000
"""Accounts, and assignments, that one sweep looks at: as many accounts as an upgrade leaves take
some tens of sweeps."""


def _waiting_of(user: str, portion: str) -> str:
    """Return what gives, in a ``portion``, a user's waiting events ``e`` that could be due.

    Their account has a customer.

    Each time of one account is a range of an index: what waits for another account is not read.
    The inner limit makes the payer a look-up, whatever the planner expects of the times' number.
    """
    return f"""{times_of(user)} had
 CROSS JOIN LATERAL (SELECT FROM billing_accounts WHERE user_id = had.account_id LIMIT 1) payer
 CROSS JOIN LATERAL (
       SELECT ctid AS place FROM usage_events
        WHERE billing_state = 'waiting' AND user_id = {user}
          AND occurred_at >= had.since AND occurred_at < had.until
        {portion}) e"""  # noqa: S608 - no input


def _release(users: str) -> str:
    """Return the statement that makes waiting events of ``users`` due.

    Rows that another transaction holds are skipped: it moves them on. Rows that are locked here are
    found again by their place, which is theirs meanwhile. By a key the planner may read the whole
    table for them, if its statistics are from a time when much was unfinished.
    """
    return f"""
UPDATE usage_events SET billing_state = 'due'
 WHERE ctid = ANY(ARRAY(
       SELECT e.place
         FROM ({users}) u
        CROSS JOIN LATERAL {_waiting_of("u.user_id", "LIMIT :most FOR UPDATE SKIP LOCKED")}
        LIMIT :most))"""  # noqa: S608 - no input


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

# The customer may be what the usage of all its account's users waited for.
LOOK_AGAIN: Final = text("""
UPDATE account_assignments SET released = false, seen_at = NULL
 WHERE account_id = :account_id AND released
""")

ASSIGN: Final = text("""
INSERT INTO account_assignments (user_id, since, revision, account_id)
VALUES (:user_id, :since, :revision, :account_id)
ON CONFLICT DO NOTHING
RETURNING user_id
""")

RELEASE_USER: Final = text(_release("SELECT CAST(:user_id AS uuid) AS user_id"))

RELEASE_ACCOUNT: Final = text(
    _release("""SELECT CAST(:account_id AS uuid) AS user_id
                 UNION SELECT user_id FROM account_assignments WHERE account_id = :account_id""")
)

# Of new customers and assignments first.
_UNRELEASED: Final = """
       SELECT {column} FROM {table}
        WHERE NOT released ORDER BY seen_at NULLS FIRST LIMIT :accounts"""

RELEASE: Final = text(
    _release(f"""({_UNRELEASED.format(column="user_id", table="billing_accounts")})
         UNION ({_UNRELEASED.format(column="user_id", table="account_assignments")})""")
)

# A batch that was recorded while the account or the assignment was stored may not have seen it,
# and adds waiting usage when it commits; so may a claim. So each is first marked as seen, at a time
# when every new statement sees it. It is released for good once all open transactions began after
# that time, and nothing of the user waits that could be due. The transactions are read by a
# statement before: what is no longer among them then is seen by this one. The times of other roles'
# transactions are hidden, and without `track_activities` all are: those that may record usage count
# as open, for an hour at most.
OPEN_SINCE: Final = text("""
SELECT min(coalesce(xact_start, now() - interval '1 hour'))
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND (xact_start IS NOT NULL
        OR (coalesce(backend_xid, backend_xmin) IS NOT NULL
            AND has_table_privilege(usesysid, 'usage_events', 'INSERT')))
""")


def _mark(table: str) -> str:
    return f"""
UPDATE {table} m
   SET seen_at = coalesce(m.seen_at, clock_timestamp()), released = m.seen_at IS NOT NULL
  FROM ({_UNRELEASED.format(column="ctid AS place", table=table)} FOR UPDATE SKIP LOCKED) l
 WHERE m.ctid = l.place
   AND (m.seen_at IS NULL
        OR (m.seen_at < :open_since
            AND NOT EXISTS (SELECT FROM {_waiting_of("m.user_id", "LIMIT 1")})))"""  # noqa: S608


MARK_ACCOUNTS: Final = text(_mark("billing_accounts"))
MARK_ASSIGNMENTS: Final = text(_mark("account_assignments"))

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
    dimensions, occurred_at, event_count, late, traceparent)
SELECT n.id, 'nexus:' || n.id, r.claim_id, r.user_id, a.stripe_customer_id, a.generation, r.meter,
       r.value, r.dimensions, r.occurred_at, r.event_count, r.late, r.traceparent
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
    """Stores customers and assignments, and moves on the usage that waited for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, provisioned: CustomerProvisioned, *, most: int = MAX_SWEPT) -> bool:
        """Store an account's customer and make up to ``most`` events that waited for it due.

        The sweep releases the others. Return whether the customer's generation is a newer one; if
        not, the stored customer stays.

        Raises:
            RowsBusyError: another transaction holds the account; nothing was stored.
            DatabaseUnavailableError: nothing was stored.
        """
        account = {"account_id": provisioned.user_id}

        async def work(connection: AsyncConnection) -> bool:
            applied = (await connection.execute(APPLY, provisioned.model_dump())).first()
            if applied is not None:
                await connection.execute(LOOK_AGAIN, account)
            await connection.execute(RELEASE_ACCOUNT, account | {"most": most})
            return applied is not None

        return await self._database.run(work)

    async def assign(self, assigned: UserAssigned, *, most: int = MAX_SWEPT) -> bool:
        """Store an assignment and make up to ``most`` events due that waited for another account.

        The sweep releases the others. An event that is due, and whose account has no customer now,
        waits once a claim meets it. What is claimed stays with the account of its claim. Return
        whether the assignment is new.

        Raises:
            RowsBusyError: another transaction stores the assignment; nothing was stored.
            DatabaseUnavailableError: nothing was stored.
        """

        async def work(connection: AsyncConnection) -> bool:
            stored = await connection.execute(ASSIGN, assigned.model_dump())
            user = {"user_id": assigned.user_id, "most": most}
            await connection.execute(RELEASE_USER, user)
            return stored.first() is not None

        return await self._database.run(work)

    async def sweep(
        self, now: datetime, *, most: int = MAX_SWEPT, most_accounts: int = MAX_ACCOUNTS
    ) -> Swept:
        """Release, expire and supersede up to ``most`` of what no other transaction moves on.

        A batch that saw no account and a provisioning that saw no events may commit at the same
        time, and so may a batch and an assignment: only the sweep finds that usage. It looks at an
        account and at an assignment until no such batch is left.
        Reports that were refused because their customer was deleted are replaced by reports to the
        customer of a higher generation, unless the outcome of an attempt was ever unknown: such a
        report may have been counted.

        Raises:
            DatabaseUnavailableError: nothing was moved.
        """
        oldest = {"oldest": now - MAX_AGE, "most": most}
        accounts = {"accounts": most_accounts}

        async def work(connection: AsyncConnection) -> Swept:
            released = await connection.execute(RELEASE, {**accounts, "most": most})
            expired = await connection.execute(EXPIRE, oldest)
            refused: list[UUID] = [
                row.report_id for row in await connection.execute(SUPERSEDE, oldest)
            ]
            if refused:
                await connection.execute(REPLACE, {"ids": refused})
            since = {"open_since": (await connection.execute(OPEN_SINCE)).scalar_one()}
            marked = [
                (await connection.execute(each, accounts | since)).rowcount
                for each in (MARK_ACCOUNTS, MARK_ASSIGNMENTS)
            ]
            moved = (released.rowcount, expired.rowcount, len(refused))
            more = max(moved) >= most or most_accounts in marked
            return Swept(*moved, more=more)

        return await self._database.run(work)
