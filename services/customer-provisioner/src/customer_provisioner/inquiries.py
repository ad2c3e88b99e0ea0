"""What is asked about the profiles; nothing here changes one."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.profile import Counts, Profile, State, StepTaken
from customer_provisioner.tables import PROFILE_COLUMNS, profile_of
from customer_provisioner.tables import provisioning_steps as steps
from customer_provisioner.tables import user_profiles as profiles
from nexus_database import Database


class Inquiries:
    """Reads the service's database; raises DatabaseUnavailableError while it can't be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID) -> Profile | None:
        """Return the user's profile, if it is kept."""

        async def work(connection: AsyncConnection) -> Profile | None:
            found = await connection.execute(
                select(*PROFILE_COLUMNS).where(profiles.c.user_id == user_id)
            )
            row = found.one_or_none()
            return None if row is None else profile_of(row)

        return await self._database.run(work)

    async def due(self, now: datetime, most: int) -> Sequence[UUID]:
        """Return users without a customer whom no message and no attempt takes care of."""
        query = (
            select(profiles.c.user_id)
            .where(
                profiles.c.state == State.PROVISIONING,
                profiles.c.refused_as.is_(None),
                profiles.c.due_at <= now,
            )
            .order_by(profiles.c.due_at)
            .limit(most)
        )

        async def work(connection: AsyncConnection) -> Sequence[UUID]:
            return (await connection.execute(query)).scalars().all()

        return await self._database.run(work)

    async def unannounced(self, most: int) -> Sequence[Profile]:
        """Return profiles whose customer the other services do not know yet, oldest first."""
        query = (
            select(*PROFILE_COLUMNS)
            .where(_unannounced())
            .order_by(profiles.c.provisioned_at)
            .limit(most)
        )

        async def work(connection: AsyncConnection) -> Sequence[Profile]:
            return [profile_of(row) for row in await connection.execute(query)]

        return await self._database.run(work)

    async def provisioned(self, since: datetime, after: UUID, most: int) -> Sequence[Profile]:
        """Return profiles that got their customer or were announced since, by user, from ``after``.

        In the order of the primary key: any number of users is read page by page, each row once.
        """
        query = (
            select(*PROFILE_COLUMNS)
            .where(
                profiles.c.user_id > after,
                profiles.c.state == State.PROVISIONED,
                # What was announced later than provisioned was changed then, too.
                profiles.c.updated_at >= since,
            )
            .order_by(profiles.c.user_id)
            .limit(most)
        )

        async def work(connection: AsyncConnection) -> Sequence[Profile]:
            return [profile_of(row) for row in await connection.execute(query)]

        return await self._database.run(work)

    async def counts(self) -> Counts:
        """Count the users who have no customer, and those whose customer is not announced.

        Asked every few seconds: each answer comes out of a small partial index, however many
        users there are.
        """
        refused = profiles.c.refused_as.is_not(None)
        unserved = and_(profiles.c.state == State.PROVISIONING, profiles.c.refused_as.is_(None))
        oldest = select(func.min(profiles.c.created_at)).where(unserved)
        query = select(
            _count(unserved), _count(refused), _count(_unannounced()), oldest.scalar_subquery()
        )

        async def work(connection: AsyncConnection) -> Counts:
            return Counts(*(await connection.execute(query)).one())

        return await self._database.run(work)

    async def of_address(self, email: str) -> Sequence[Profile]:
        """Return the profiles kept under exactly this address, oldest first."""
        query = (
            select(*PROFILE_COLUMNS)
            .where(profiles.c.email == email)
            .order_by(profiles.c.created_at)
        )

        async def work(connection: AsyncConnection) -> Sequence[Profile]:
            return [profile_of(row) for row in await connection.execute(query)]

        return await self._database.run(work)

    async def history(self, user_id: UUID) -> Sequence[StepTaken]:
        """Return every step taken for a user, in order."""
        query = (
            select(steps.c.at, steps.c.generation, steps.c.step, steps.c.detail)
            .where(steps.c.user_id == user_id)
            .order_by(steps.c.step_id)
        )

        async def work(connection: AsyncConnection) -> Sequence[StepTaken]:
            return [StepTaken(*row) for row in await connection.execute(query)]

        return await self._database.run(work)


def _unannounced() -> ColumnElement[bool]:
    return and_(
        profiles.c.state == State.PROVISIONED,
        profiles.c.announced_generation < profiles.c.generation,
    )


def _count(condition: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(profiles).where(condition).scalar_subquery()
