"""The SQL of changes of users: each is one short transaction.

Whoever locks a profile and a change locks the profile first.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.changes import NextStep, NoCustomer, Send, UserChange, merge, next_step
from customer_provisioner.profile import LEASE, SWEEP_DELAY
from customer_provisioner.storage.statements import Step
from nexus_contracts import UserUpdated
from nexus_database import Database

_COLUMNS: Final = ", ".join(field.name for field in fields(UserChange))

_INSERT: Final = text("""
INSERT INTO user_changes (user_id, revision, due_at) VALUES (:user_id, 1, :due_at)
ON CONFLICT DO NOTHING
""")

_FIND: Final = text(f"SELECT {_COLUMNS} FROM user_changes WHERE user_id = :user_id")  # noqa: S608 - names of ours

_LOCK: Final = text(f"{_FIND.text} FOR UPDATE")

_KEEP: Final = text("""
UPDATE user_changes
   SET email = :email, email_as_of = :email_as_of, name = :name, name_as_of = :name_as_of,
       revision = :revision, waiting_since = :waiting_since, refused_as = :refused_as,
       due_at = :due_at
 WHERE user_id = :user_id
""")

_CUSTOMER: Final = text("SELECT stripe_customer_id FROM user_profiles WHERE user_id = :user_id")

_LOCK_PROFILE: Final = text("SELECT FROM user_profiles WHERE user_id = :user_id FOR UPDATE")

_CLAIM: Final = text("""
UPDATE user_changes SET claimed_until = :lease_end, due_at = :lease_end WHERE user_id = :user_id
""")

# Until the user's customer is stored: else each sweep would read the changes of all unknown users.
_AWAIT_CUSTOMER: Final = text("""
UPDATE user_changes SET due_at = 'infinity' WHERE user_id = :user_id
""")

_FINISH: Final = text("""
UPDATE user_changes
   SET claimed_until = NULL, waiting_since = NULL, last_fault = NULL, refused_as = NULL
 WHERE user_id = :user_id AND revision = :revision
""")

# A call that ends after a newer one may have reached Stripe after it: the newest is sent again.
_RELEASE: Final = text("""
UPDATE user_changes
   SET claimed_until = NULL, due_at = :now, waiting_since = coalesce(waiting_since, :now)
 WHERE user_id = :user_id
""")

# The claim stays: a call whose answer was lost may still arrive, after a newer one.
_NOTE_FAULT: Final = text("""
UPDATE user_changes SET last_fault = :fault, waiting_since = coalesce(waiting_since, :now)
 WHERE user_id = :user_id
""")

_REFUSE: Final = text("""
UPDATE user_changes SET claimed_until = NULL, last_fault = :fault, refused_as = :fault
 WHERE user_id = :user_id AND revision = :revision
""")

_RECORD: Final = text("""
INSERT INTO provisioning_steps (user_id, generation, step, detail, at)
SELECT user_id, generation, :step, :detail, :now FROM user_profiles WHERE user_id = :user_id
""")

_DUE: Final = text("""
SELECT c.user_id FROM user_changes c JOIN user_profiles p USING (user_id)
 WHERE c.waiting_since IS NOT NULL AND c.refused_as IS NULL AND c.due_at <= :now
   AND p.state = 'provisioned'
 ORDER BY c.due_at LIMIT :limit
""")

_WAITING_SINCE: Final = text("""
SELECT min(greatest(c.waiting_since, p.provisioned_at))
  FROM user_changes c JOIN user_profiles p USING (user_id)
 WHERE c.waiting_since IS NOT NULL AND c.refused_as IS NULL AND c.due_at < 'infinity'
   AND p.state = 'provisioned'
""")


class ChangeStore:
    """Keeps what changes about users until their customers at Stripe have it.

    Every method raises:
        DatabaseUnavailableError: the database can't be used.
        RowsBusyError: another transaction holds the user's row.
        RowRefusedError: the database can never store these values.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, update: UserUpdated, time: datetime, now: datetime) -> bool:
        """Store an update of this ``time``, of a known or unknown user.

        Returns:
            Whether it says anything that was not known, or outranked by a later one.
        """
        if update.email is None and update.name is None:
            return False
        due = {"user_id": update.user_id, "due_at": now + SWEEP_DELAY}

        async def work(connection: AsyncConnection) -> bool:
            await connection.execute(_INSERT, due)
            stored = UserChange(*(await connection.execute(_LOCK, due)).one())
            merged = merge(stored, update, time, now)
            await connection.execute(_KEEP, {**asdict(merged), **due})
            return merged.revision > stored.revision

        return await self._database.run(work)

    async def find(self, user_id: UUID) -> UserChange | None:
        """Return what was said of a user, if anything was."""

        async def work(connection: AsyncConnection) -> UserChange | None:
            row = (await connection.execute(_FIND, {"user_id": user_id})).one_or_none()
            return None if row is None else UserChange(*row)

        return await self._database.run(work)

    async def claim(self, user_id: UUID, now: datetime) -> NextStep | None:
        """Decide the next step for a user's change and claim it, if it needs a call.

        Returns:
            The step; None if nothing was said of the user.
        """
        of_user = {"user_id": user_id}

        async def work(connection: AsyncConnection) -> NextStep | None:
            await connection.execute(_LOCK_PROFILE, of_user)  # its customer may be being stored
            row = (await connection.execute(_LOCK, of_user)).one_or_none()
            if row is None:
                return None
            customer_id = await connection.scalar(_CUSTOMER, of_user)
            step = next_step(UserChange(*row), customer_id, now)
            if isinstance(step, Send):
                await connection.execute(_CLAIM, {**of_user, "lease_end": now + LEASE})
            elif isinstance(step, NoCustomer):
                await connection.execute(_AWAIT_CUSTOMER, of_user)
            return step

        return await self._database.run(work)

    async def finish(self, sent: Send, now: datetime) -> bool:
        """Record that Stripe has the change.

        Returns:
            Whether the customer has all that is known now: nothing new came meanwhile.
        """
        values = {"user_id": sent.user_id, "revision": sent.revision, "now": now}

        async def work(connection: AsyncConnection) -> bool:
            await connection.execute(_LOCK_PROFILE, values)
            done = (await connection.execute(_FINISH, values)).rowcount == 1
            if not done:
                await connection.execute(_RELEASE, values)
            await connection.execute(_RECORD, {**values, "step": Step.CHANGE_SENT, "detail": None})
            return done

        return await self._database.run(work)

    async def fail(self, step: Send, fault: str, now: datetime) -> None:
        """Record that an attempt failed with ``fault``, a text without any value.

        The next one is made when the claim has ended.
        """
        values = {"user_id": step.user_id, "fault": fault, "now": now}
        await self._database.run(lambda connection: connection.execute(_NOTE_FAULT, values))

    async def refuse(self, step: Send, fault: str, now: datetime) -> None:
        """Record that Stripe refuses a change, unless another came meanwhile."""
        values = {"user_id": step.user_id, "revision": step.revision, "now": now, "fault": fault}

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_LOCK_PROFILE, values)
            if (await connection.execute(_REFUSE, values)).rowcount == 0:
                await connection.execute(_RELEASE, values)
            refused = {**values, "step": Step.CHANGE_REFUSED, "detail": fault}
            await connection.execute(_RECORD, refused)

        await self._database.run(work)

    async def due(self, now: datetime, limit: int) -> Sequence[UUID]:
        """Return users with a customer whose changes no message takes care of."""
        values = {"now": now, "limit": limit}
        return await self._database.run(lambda c: _all_ids(c, values))

    async def waiting_since(self) -> datetime | None:
        """Return since when the oldest change waits that could be sent and is not refused."""

        async def work(connection: AsyncConnection) -> datetime | None:
            oldest: datetime | None = await connection.scalar(_WAITING_SINCE)
            return oldest

        return await self._database.run(work)


async def _all_ids(connection: AsyncConnection, values: dict[str, object]) -> Sequence[UUID]:
    return (await connection.scalars(_DUE, values)).all()
