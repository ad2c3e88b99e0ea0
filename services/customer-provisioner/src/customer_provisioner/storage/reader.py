"""The SQL that reads profiles; nothing here changes one."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.profile import Counts, HistoryEntry, Profile, State
from nexus_database import Database

AnyRow = Row[*tuple[Any, ...]]

BEFORE_FIRST_USER: Final = UUID(int=0)

COLUMNS: Final = ", ".join(field.name for field in fields(Profile))
"""The columns of a profile, in the order of its fields."""

SELECT: Final = f"SELECT {COLUMNS} FROM user_profiles"  # noqa: S608 - names of ours, no values

_FIND: Final = text(f"{SELECT} WHERE user_id = :user_id")

_WITH_EMAIL: Final = text(f"""
{SELECT}
 WHERE user_id IN (SELECT user_id FROM user_profiles WHERE email = :email
                    UNION SELECT user_id FROM user_changes WHERE email = :email)
 ORDER BY created_at
""")  # noqa: S608 - names of ours, no values

_DUE: Final = text("""
SELECT user_id FROM user_profiles
 WHERE state <> 'provisioned' AND refused_as IS NULL AND due_at <= :now
 ORDER BY due_at LIMIT :limit
""")

_UNANNOUNCED: Final = text(f"""
{SELECT}
 WHERE state = 'provisioned' AND announced_generation < generation
   AND user_id <> ALL(:aside)
 ORDER BY provisioned_at LIMIT :limit
""")

# By the primary key: any number of users is read page by page, each row once. An announcement
# later than the provisioning has changed updated_at, too.
_PROVISIONED_SINCE: Final = text(f"""
{SELECT}
 WHERE user_id > :after AND state = 'provisioned' AND updated_at >= :since
 ORDER BY user_id LIMIT :limit
""")

# Runs every few seconds: each number comes from a small partial index, however many users exist.
_COUNTS: Final = text("""
SELECT (SELECT count(*) FROM user_profiles
         WHERE state <> 'provisioned' AND refused_as IS NULL) AS provisioning,
       (SELECT count(*) FROM user_profiles WHERE refused_as IS NOT NULL) AS refused,
       (SELECT count(*) FROM user_profiles
         WHERE state = 'provisioned' AND announced_generation < generation) AS unannounced,
       (SELECT min(created_at) FROM user_profiles
         WHERE state <> 'provisioned' AND refused_as IS NULL) AS waiting_since,
       (SELECT count(*) FROM user_profiles
         WHERE deleted_customer_id = stripe_customer_id) AS customer_deleted
""")

_ORGANISATIONS: Final = text(f"""
{SELECT} WHERE organisation AND user_id > :after ORDER BY user_id LIMIT :limit
""")

_HISTORY: Final = text("""
SELECT at, generation, step, detail FROM provisioning_steps
 WHERE user_id = :user_id ORDER BY step_id
""")


class ProfileReader:
    """Reads the service's database.

    Every method raises DatabaseUnavailableError while the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID) -> Profile | None:
        """Return the profile of a user, if there is one."""
        found = await self._rows(_FIND, {"user_id": user_id})
        return profile_from(found[0]) if found else None

    async def with_email(self, email: str) -> Sequence[Profile]:
        """Return users whose first or present address is exactly this one, oldest first."""
        return [profile_from(row) for row in await self._rows(_WITH_EMAIL, {"email": email})]

    async def due(self, now: datetime, limit: int) -> Sequence[UUID]:
        """Return users without a customer that neither a message nor an attempt takes care of."""
        return [row.user_id for row in await self._rows(_DUE, {"now": now, "limit": limit})]

    async def unannounced(self, limit: int, aside: Sequence[Profile] = ()) -> Sequence[Profile]:
        """Return profiles but those ``aside`` whose customer is not announced, oldest first."""
        values = {"limit": limit, "aside": [each.user_id for each in aside]}
        return [profile_from(row) for row in await self._rows(_UNANNOUNCED, values)]

    async def provisioned_since(
        self, since: datetime, after: Profile | None, limit: int
    ) -> Sequence[Profile]:
        """Return a page of profiles that were provisioned or announced since a time.

        They are ordered by user; ``after`` is the last one of the page before.
        """
        last = BEFORE_FIRST_USER if after is None else after.user_id
        values = {"since": since, "after": last, "limit": limit}
        return [profile_from(row) for row in await self._rows(_PROVISIONED_SINCE, values)]

    async def organisations(self, after: UUID, limit: int) -> Sequence[Profile]:
        """Return a page of organisations' accounts, ordered by id; ``after`` is the last before."""
        values = {"after": after, "limit": limit}
        return [profile_from(row) for row in await self._rows(_ORGANISATIONS, values)]

    async def counts(self) -> Counts:
        """Count users without a customer, and customers that are not announced."""
        (row,) = await self._rows(_COUNTS, {})
        return Counts(*row)

    async def history(self, user_id: UUID) -> Sequence[HistoryEntry]:
        """Return every step taken for a user, in order."""
        return [HistoryEntry(*row) for row in await self._rows(_HISTORY, {"user_id": user_id})]

    async def _rows(self, query: TextClause, values: Mapping[str, Any]) -> Sequence[AnyRow]:
        async def work(connection: AsyncConnection) -> Sequence[AnyRow]:
            return (await connection.execute(query, values)).all()

        return await self._database.run(work)


def profile_from(row: AnyRow) -> Profile:
    """Return the profile in a row of ``COLUMNS``.

    A row in the state ``linking`` is one that is being provisioned and has a ``link_to``. It has a
    state of its own because processes of 0.1.0 would create a customer for it.
    """
    values = dict(zip(row._fields, row, strict=True))
    served = row.state == State.PROVISIONED
    return Profile(**{**values, "state": State.PROVISIONED if served else State.PROVISIONING})
