"""The SQL of assignments: rows are added, and marked as announced, and never otherwise changed."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.assignments import Assignment, assign, assignment_at
from nexus_database import Database

_COLUMNS: Final = ", ".join(field.name for field in fields(Assignment))

_SELECT: Final = f"SELECT {_COLUMNS} FROM account_assignments"  # noqa: S608 - names of ours, no values

_OF_USER: Final = text(f"{_SELECT} WHERE user_id = :user_id ORDER BY since, revision")

# Two assignments of one user would have one revision, or be decided without each other.
_LOCK_USER: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:user_id, 1))")

_INSERT: Final = text(f"""
INSERT INTO account_assignments ({_COLUMNS})
VALUES (:user_id, :account_id, :since, :revision, :made_at, :made_by)
""")  # noqa: S608 - names of ours, no values

_IS_ORGANISATION: Final = text("""
SELECT organisation FROM user_profiles WHERE user_id = :user_id
""")

_UNANNOUNCED: Final = text(f"""
{_SELECT}
 WHERE announced_at IS NULL
   AND (user_id, revision) NOT IN (
       SELECT * FROM unnest(CAST(:user_ids AS uuid[]), CAST(:revisions AS bigint[])))
 ORDER BY made_at LIMIT :limit
""")  # noqa: S608 - names of ours, no values

_ANNOUNCED_SINCE: Final = text(f"""
{_SELECT}
 WHERE (user_id, revision) > (:user_id, :revision)
   AND (announced_at IS NULL OR announced_at >= :since)
 ORDER BY user_id, revision LIMIT :limit
""")

_MARK: Final = text("""
UPDATE account_assignments a SET announced_at = :now
  FROM unnest(CAST(:user_ids AS uuid[]), CAST(:revisions AS bigint[])) AS m (user_id, revision)
 WHERE (a.user_id, a.revision) = (m.user_id, m.revision)
""")

# Of each user who was ever assigned to the account, the assignment that holds now.
_MEMBERS: Final = text("""
SELECT p.user_id
  FROM (SELECT DISTINCT user_id FROM account_assignments WHERE account_id = :account_id) m
 CROSS JOIN LATERAL (
       SELECT user_id, account_id FROM account_assignments
        WHERE user_id = m.user_id AND since <= :now
        ORDER BY since DESC, revision DESC LIMIT 1) p
 WHERE p.account_id = :account_id
 ORDER BY p.user_id
""")


class NotAssignableError(Exception):
    """The assignment is refused; the text says why."""


class AssignmentStore:
    """Keeps who pays for whom.

    Every method raises DatabaseUnavailableError while the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def assign(
        self,
        user_id: UUID,
        account_id: UUID,
        since: datetime | None,
        *,
        now: datetime,
        made_by: str,
    ) -> tuple[Assignment | None, bool]:
        """Have an account pay for a user, from ``since`` or from now on.

        Returns:
            The assignment that holds from then on, and whether it is new. There is none if the user
            has always paid for themselves, and so goes on.

        Raises:
            NotAssignableError: the account is unknown, or the user is an organisation.
        """
        user = {"user_id": user_id}

        async def work(connection: AsyncConnection) -> tuple[Assignment | None, bool]:
            await connection.execute(_LOCK_USER, {"user_id": str(user_id)})
            if await connection.scalar(_IS_ORGANISATION, user):
                raise NotAssignableError("an organisation pays for itself")
            known = await connection.scalar(_IS_ORGANISATION, {"user_id": account_id})
            if account_id != user_id and known is None:
                raise NotAssignableError("no such account: create it first")
            history = await _history(connection, user_id)
            made = assign(history, user_id, account_id, since, now=now, made_by=made_by)
            if made is None:
                return assignment_at(history, since or now), False
            await connection.execute(_INSERT, asdict(made))
            return made, True

        return await self._database.run(work)

    async def of_user(self, user_id: UUID) -> Sequence[Assignment]:
        """Return all assignments of a user, in the order of their times."""
        return await self._database.run(lambda connection: _history(connection, user_id))

    async def members(self, account_id: UUID, now: datetime) -> Sequence[UUID]:
        """Return the users for whom an account pays by an assignment."""
        values = {"account_id": account_id, "now": now}

        async def work(connection: AsyncConnection) -> Sequence[UUID]:
            return (await connection.scalars(_MEMBERS, values)).all()

        return await self._database.run(work)

    async def unannounced(
        self, limit: int, aside: Sequence[Assignment] = ()
    ) -> Sequence[Assignment]:
        """Return assignments but those ``aside`` that are not announced yet, oldest first."""
        return await self._read(_UNANNOUNCED, limit=limit, **_keys(aside))

    async def announced_since(
        self, since: datetime, after: Assignment | None, limit: int
    ) -> Sequence[Assignment]:
        """Return a page of assignments announced since a time, or not yet.

        They are ordered by user and revision; ``after`` is the last one of the page before.
        """
        user_id, revision = (UUID(int=0), 0) if after is None else (after.user_id, after.revision)
        return await self._read(
            _ANNOUNCED_SINCE, since=since, user_id=user_id, revision=revision, limit=limit
        )

    async def mark_announced(self, announced: Sequence[Assignment], now: datetime) -> int:
        """Mark assignments as announced; return how many were marked."""
        values = {**_keys(announced), "now": now}

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(_MARK, values)).rowcount

        return await self._database.run(work)

    async def _read(self, query: TextClause, **values: Any) -> Sequence[Assignment]:
        async def work(connection: AsyncConnection) -> Sequence[Assignment]:
            return [Assignment(*row) for row in await connection.execute(query, values)]

        return await self._database.run(work)


def _keys(assignments: Sequence[Assignment]) -> dict[str, Any]:
    return {
        "user_ids": [each.user_id for each in assignments],
        "revisions": [each.revision for each in assignments],
    }


async def _history(connection: AsyncConnection, user_id: UUID) -> list[Assignment]:
    return [Assignment(*row) for row in await connection.execute(_OF_USER, {"user_id": user_id})]
