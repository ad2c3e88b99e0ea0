"""Where profiles are kept: every change is one short transaction, made only if still called for."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.profile import (
    LEASE,
    PATIENCE,
    Attempt,
    Create,
    LookUpFirst,
    Profile,
    State,
    Step,
    create_request,
    decide,
)
from customer_provisioner.tables import PROFILE_COLUMNS, profile_of
from customer_provisioner.tables import provisioning_steps as steps
from customer_provisioner.tables import user_profiles as profiles
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.tracing import carried


class Kept(Enum):
    """What became of a ``user.created``."""

    NEW = auto()
    SAME = auto()
    ADDRESS_REPLACED = auto()
    OTHER_ADDRESS = auto()


class Stored(Enum):
    """What became of a customer that Stripe made or had."""

    NOW = auto()
    BEFORE = auto()
    SURPLUS = auto()


class Taken(StrEnum):
    """A step taken for a user, as support reads it."""

    KEPT = "kept"
    CREATE_SENT = "create_sent"
    KEY_SPENT = "key_spent"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    CREATED = "created"
    ADOPTED = "adopted"
    ANNOUNCED = "announced"
    REPROVISION_ASKED = "reprovision_asked"
    ADDRESS_REPLACED = "address_replaced"


class Profiles:
    """The profiles in the service's database.

    Every method raises DatabaseUnavailableError while the database can't be used, and the writing
    ones RowRefusedError for values that it will never take, RowsBusyError for a user being changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, user: UserCreated, now: datetime) -> Kept:
        """Keep ``user`` and the request that will create its customer, unless they are kept.

        The first address stands, with one exception: one that Stripe refused gives way to the next.
        """

        async def work(connection: AsyncConnection) -> Kept:
            if await _inserted(connection, user, now):
                return Kept.NEW
            profile = await _locked(connection, user.user_id)
            if profile.email == user.email:
                return Kept.SAME
            if profile.refused_as is None:
                return Kept.OTHER_ADDRESS
            address = _address(user)
            await _change(connection, profile.attempt, now, address, Taken.ADDRESS_REPLACED)
            return Kept.ADDRESS_REPLACED

        return await self._database.run(work)

    async def claim(self, user_id: UUID, now: datetime) -> Step:
        """Decide the next step for a kept user and, if there is one to take, claim the user."""

        async def work(connection: AsyncConnection) -> Step:
            profile = await _locked(connection, user_id)
            step = decide(profile, now)
            lease = {"claimed_until": now + LEASE, "due_at": now + LEASE}
            match step:
                case Create(attempt):
                    started = profile.call_started_at or now
                    values = {
                        **lease,
                        "call_started_at": started,
                        "attempts": profile.attempts + 1,
                    }
                    taken = None if profile.call_started_at else Taken.CREATE_SENT
                    await _change(connection, attempt, now, values, taken)
                case LookUpFirst(attempt):
                    await _change(connection, attempt, now, lease)
            return step

        return await self._database.run(work)

    async def store(self, attempt: Attempt, customer_id: str, how: Taken, now: datetime) -> Stored:
        """Store the customer of the attempt's generation and its trace; the first one stays."""
        values = {
            "state": State.PROVISIONED,
            "stripe_customer_id": customer_id,
            "provisioned_at": now,
            "claimed_until": None,
            "refused_as": None,
            "traceparent": carried(),
        }

        async def work(connection: AsyncConnection) -> Stored:
            profile = await _locked(connection, attempt.user_id)
            if profile.stripe_customer_id == customer_id:
                return Stored.BEFORE
            if profile.stripe_customer_id or profile.generation != attempt.generation:
                return Stored.SURPLUS
            await _change(connection, profile.attempt, now, values, how, customer_id)
            return Stored.NOW

        return await self._database.run(work)

    async def give_up(self, attempt: Attempt, fault: str, now: datetime) -> None:
        """End an attempt that may be repeated as it was."""
        await self._settle(attempt, now, {"last_fault": fault})

    async def spend_key(self, attempt: Attempt, fault: str, now: datetime) -> None:
        """End an attempt whose key can't bring a customer any more, though it may have."""
        values = {"last_fault": fault, "key_spent": True}
        await self._settle(attempt, now, values, Taken.KEY_SPENT, fault)

    async def refuse(self, attempt: Attempt, refusal: str, now: datetime) -> None:
        """End an attempt that Stripe refused: only a message takes the user up again."""
        values = {"last_fault": refusal, "refused_as": refusal, "key_spent": True}
        await self._settle(attempt, now, values, Taken.REFUSED, refusal)

    async def renew_key(self, attempt: Attempt, now: datetime) -> None:
        """End a look-up that found no customer: the next creation has a key of its own."""
        values = {
            "key_n": attempt.key_n + 1,
            "key_spent": False,
            "call_started_at": None,
            "refused_as": None,
        }
        await self._settle(attempt, now, values, Taken.NOT_FOUND)

    async def renew(self, profile: Profile, now: datetime) -> bool:
        """Begin the next generation of a user whose customer is gone; tell whether it was begun."""
        values = {
            "state": State.PROVISIONING,
            "generation": profile.generation + 1,
            "key_n": 1,
            "key_spent": False,
            "call_started_at": None,
            "attempts": 0,
            "last_fault": None,
            "stripe_customer_id": None,
            "provisioned_at": None,
            "due_at": now,
        }

        async def work(connection: AsyncConnection) -> bool:
            return await _change(
                connection,
                profile.attempt,
                now,
                values,
                Taken.REPROVISION_ASKED,
                profile.stripe_customer_id,
                state=State.PROVISIONED,
            )

        return await self._database.run(work)

    async def mark_announced(self, announced: Sequence[Profile], now: datetime) -> int:
        """Mark those that no other transaction holds as announced; return how many that were."""

        async def work(connection: AsyncConnection) -> int:
            theirs = profiles.c.user_id.in_([profile.user_id for profile in announced])
            query = select(profiles.c.user_id).where(theirs).with_for_update(skip_locked=True)
            free = set(await connection.scalars(query))
            marked = 0
            for each in filter(lambda profile: profile.user_id in free, announced):
                values = {"announced_generation": each.generation}
                marked += await _change(
                    connection, each.attempt, now, values, Taken.ANNOUNCED, state=State.PROVISIONED
                )
            return marked

        return await self._database.run(work)

    async def _settle(
        self,
        attempt: Attempt,
        now: datetime,
        values: dict[str, Any],
        taken: Taken | None = None,
        detail: str | None = None,
    ) -> None:
        released = {"claimed_until": None, "due_at": now + PATIENCE, **values}
        await self._database.run(
            lambda connection: _change(connection, attempt, now, released, taken, detail)
        )


async def _inserted(connection: AsyncConnection, user: UserCreated, now: datetime) -> bool:
    added = await connection.execute(
        insert_or_skip(profiles)
        .values(
            user_id=user.user_id,
            **_address(user),
            state=State.PROVISIONING,
            generation=1,
            key_n=1,
            key_spent=False,
            due_at=now + PATIENCE,
            attempts=0,
            announced_generation=0,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
        .returning(profiles.c.user_id)
    )
    if added.one_or_none() is None:
        return False
    await _record(connection, user.user_id, 1, Taken.KEPT, None, now)
    return True


async def _change(
    connection: AsyncConnection,
    expected: Attempt,
    now: datetime,
    values: dict[str, Any],
    taken: Taken | None = None,
    detail: str | None = None,
    *,
    state: State = State.PROVISIONING,
) -> bool:
    """Change a profile only if nobody has moved it on from what is expected; tell whether."""
    changed = await connection.execute(
        update(profiles)
        .where(
            profiles.c.user_id == expected.user_id,
            profiles.c.generation == expected.generation,
            profiles.c.key_n == expected.key_n,
            profiles.c.state == state,
        )
        .values(**values, updated_at=now)
        .returning(profiles.c.generation)
    )
    generation = changed.scalar_one_or_none()
    if generation is None:
        return False
    if taken is not None:
        await _record(connection, expected.user_id, generation, taken, detail, now)
    return True


async def _record(
    connection: AsyncConnection,
    user_id: UUID,
    generation: int,
    taken: Taken,
    detail: str | None,
    now: datetime,
) -> None:
    await connection.execute(
        insert(steps).values(
            user_id=user_id, generation=generation, step=taken, detail=detail, at=now
        )
    )


async def _locked(connection: AsyncConnection, user_id: UUID) -> Profile:
    query = select(*PROFILE_COLUMNS).where(profiles.c.user_id == user_id).with_for_update()
    return profile_of((await connection.execute(query)).one())


def _address(user: UserCreated) -> dict[str, Any]:
    return {"email": user.email, "name": user.name, "create_request": create_request(user)}
