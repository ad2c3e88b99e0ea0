"""The SQL that changes profiles: each change is one short transaction and has its history entry.

An attempt changes a profile only if generation and key are still those that it works on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.profile import (
    LEASE,
    SWEEP_DELAY,
    Attempt,
    Create,
    LookUp,
    NextStep,
    Profile,
    State,
    create_request,
    next_step,
)
from customer_provisioner.storage.reader import SELECT, profile_from
from nexus_contracts import UserCreated
from nexus_database import Database
from nexus_messaging.tracing import span_traceparent


class KeepResult(Enum):
    """What became of the user in a ``user.created``."""

    NEW = auto()
    SAME = auto()
    ADDRESS_REPLACED = auto()
    ADDRESS_IGNORED = auto()


class StoreResult(Enum):
    """What became of a customer that Stripe created or had."""

    STORED = auto()
    ALREADY_STORED = auto()
    SURPLUS = auto()


class Failure(Enum):
    """What a failed attempt means for the next one."""

    RETRYABLE = auto()
    """It may repeat this one as it was."""
    KEY_SPENT = auto()
    """The key can't bring a customer any more, but may have brought one."""
    REFUSED = auto()
    """Only a message begins another attempt."""


class Step(StrEnum):
    """The steps in a user's history."""

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


_INSERT: Final = text("""
INSERT INTO user_profiles
       (user_id, email, name, create_request, state, generation, key_n, key_spent, due_at, attempts,
        announced_generation, created_at, updated_at)
VALUES (:user_id, :email, :name, CAST(:create_request AS jsonb), 'provisioning', 1, 1, false,
        :due_at, 0, 0, :now, :now)
ON CONFLICT DO NOTHING
RETURNING user_id
""")

_LOCK: Final = text(f"{SELECT} WHERE user_id = :user_id FOR UPDATE")

_LOCK_FREE: Final = text("""
SELECT user_id FROM user_profiles
 WHERE user_id = ANY(CAST(:user_ids AS uuid[])) FOR UPDATE SKIP LOCKED
""")

_RECORD: Final = text("""
INSERT INTO provisioning_steps (user_id, generation, step, detail, at)
VALUES (:user_id, :generation, :step, :detail, :now)
""")


def _update(assignments: str, state: State = State.PROVISIONING) -> TextClause:
    return text(f"""
UPDATE user_profiles SET {assignments}, updated_at = :now
 WHERE user_id = :user_id AND generation = :generation AND key_n = :key_n AND state = '{state}'
RETURNING generation
""")  # noqa: S608 - assignments of ours, no values


_REPLACE_ADDRESS: Final = _update(
    "email = :email, name = :name, create_request = CAST(:create_request AS jsonb)"
)

_LEASE: Final = "claimed_until = :lease_end, due_at = :lease_end"
_CLAIM_CREATE: Final = _update(
    f"{_LEASE}, call_started_at = coalesce(call_started_at, :now), attempts = attempts + 1"
)
_CLAIM_LOOK_UP: Final = _update(_LEASE)

_STORE: Final = _update("""
       state = 'provisioned', stripe_customer_id = :customer_id, provisioned_at = :now,
       claimed_until = NULL, refused_as = NULL, traceparent = :traceparent""")

_RELEASE: Final = "claimed_until = NULL, due_at = :due_at"
_RENEW_KEY: Final = _update(f"""
       {_RELEASE}, key_n = key_n + 1, key_spent = false, call_started_at = NULL,
       refused_as = NULL""")
_FAIL: Final = {
    Failure.RETRYABLE: (_update(f"{_RELEASE}, last_fault = :fault"), None),
    Failure.KEY_SPENT: (
        _update(f"{_RELEASE}, last_fault = :fault, key_spent = true"),
        Step.KEY_SPENT,
    ),
    Failure.REFUSED: (
        _update(f"{_RELEASE}, last_fault = :fault, key_spent = true, refused_as = :fault"),
        Step.REFUSED,
    ),
}

_NEXT_GENERATION: Final = _update(
    """
       state = 'provisioning', generation = generation + 1, key_n = 1, key_spent = false,
       call_started_at = NULL, attempts = 0, last_fault = NULL, stripe_customer_id = NULL,
       provisioned_at = NULL, due_at = :now""",
    State.PROVISIONED,
)

_MARK_ANNOUNCED: Final = _update("announced_generation = :generation", State.PROVISIONED)


class ProfileWriter:
    """Changes the service's database.

    Every method raises:
        DatabaseUnavailableError: the database can't be used.
        RowsBusyError: another transaction holds the user's row.
        RowRefusedError: the database can never store these values.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, user: UserCreated, now: datetime) -> KeepResult:
        """Store ``user`` and the request that will create its customer, unless it is stored.

        The first address stays, with one exception: an address that Stripe refused is replaced.
        """

        async def work(connection: AsyncConnection) -> KeepResult:
            values = {
                "email": user.email,
                "name": user.name,
                "create_request": json.dumps(create_request(user)),
            }
            row = {**values, "user_id": user.user_id, "due_at": now + SWEEP_DELAY, "now": now}
            if (await connection.execute(_INSERT, row)).first() is not None:
                await _record(connection, user.user_id, 1, Step.KEPT, None, now)
                return KeepResult.NEW
            profile = await _locked(connection, user.user_id)
            if profile.email == user.email:
                return KeepResult.SAME
            if profile.refused_as is None:
                return KeepResult.ADDRESS_IGNORED
            attempt, step = profile.attempt, Step.ADDRESS_REPLACED
            await _change(connection, _REPLACE_ADDRESS, attempt, now, step, **values)
            return KeepResult.ADDRESS_REPLACED

        return await self._database.run(work)

    async def claim(self, user_id: UUID, now: datetime) -> NextStep:
        """Decide the next step for a stored user and, if it needs a call, claim the user for it."""
        end = now + LEASE

        async def work(connection: AsyncConnection) -> NextStep:
            profile = await _locked(connection, user_id)
            step = next_step(profile, now)
            match step:
                case Create(attempt):
                    first = Step.CREATE_SENT if profile.call_started_at is None else None
                    await _change(connection, _CLAIM_CREATE, attempt, now, first, lease_end=end)
                case LookUp(attempt):
                    await _change(connection, _CLAIM_LOOK_UP, attempt, now, lease_end=end)
            return step

        return await self._database.run(work)

    async def store(
        self, attempt: Attempt, customer_id: str, how: Step, now: datetime
    ) -> StoreResult:
        """Store the customer of the attempt's generation and its trace; the first one stays."""
        values = {"customer_id": customer_id, "traceparent": span_traceparent()}

        async def work(connection: AsyncConnection) -> StoreResult:
            profile = await _locked(connection, attempt.user_id)
            if profile.stripe_customer_id == customer_id:
                return StoreResult.ALREADY_STORED
            if profile.stripe_customer_id or profile.generation != attempt.generation:
                return StoreResult.SURPLUS
            await _change(connection, _STORE, profile.attempt, now, how, customer_id, **values)
            return StoreResult.STORED

        return await self._database.run(work)

    async def fail(self, attempt: Attempt, failure: Failure, fault: str, now: datetime) -> None:
        """End an attempt that failed with ``fault``, a text without any value."""
        statement, step = _FAIL[failure]
        values = {"fault": fault, "due_at": now + SWEEP_DELAY}
        await self._database.run(
            lambda connection: _change(connection, statement, attempt, now, step, fault, **values)
        )

    async def renew_key(self, attempt: Attempt, now: datetime) -> None:
        """End a look-up that found no customer: the next creation has a new key."""
        step, due_at = Step.NOT_FOUND, now + SWEEP_DELAY
        await self._database.run(
            lambda connection: _change(connection, _RENEW_KEY, attempt, now, step, due_at=due_at)
        )

    async def begin_generation(self, profile: Profile, now: datetime) -> bool:
        """Begin the next generation of a user whose customer is gone.

        Returns:
            Whether it was begun. It is not if the profile has changed since it was read.
        """
        step, former = Step.REPROVISION_ASKED, profile.stripe_customer_id
        return await self._database.run(
            lambda connection: _change(
                connection, _NEXT_GENERATION, profile.attempt, now, step, former
            )
        )

    async def mark_announced(self, announced: Sequence[Profile], now: datetime) -> int:
        """Mark those that no other transaction holds as announced; return how many were marked."""
        user_ids = [profile.user_id for profile in announced]

        async def work(connection: AsyncConnection) -> int:
            free = set(await connection.scalars(_LOCK_FREE, {"user_ids": user_ids}))
            marked = 0
            for each in announced:
                if each.user_id in free:
                    marked += await _change(
                        connection, _MARK_ANNOUNCED, each.attempt, now, Step.ANNOUNCED
                    )
            return marked

        return await self._database.run(work)


async def _locked(connection: AsyncConnection, user_id: UUID) -> Profile:
    return profile_from((await connection.execute(_LOCK, {"user_id": user_id})).one())


async def _change(
    connection: AsyncConnection,
    statement: TextClause,
    expected: Attempt,
    now: datetime,
    step: Step | None = None,
    detail: str | None = None,
    **values: Any,
) -> bool:
    """Change the profile if it is as expected, and record the step; return whether it was."""
    changed = await connection.execute(statement, {**asdict(expected), "now": now, **values})
    row = changed.one_or_none()
    if row is None:
        return False
    if step is not None:
        await _record(connection, expected.user_id, row.generation, step, detail, now)
    return True


async def _record(
    connection: AsyncConnection,
    user_id: UUID,
    generation: int,
    step: Step,
    detail: str | None,
    now: datetime,
) -> None:
    await connection.execute(
        _RECORD,
        {"user_id": user_id, "generation": generation, "step": step, "detail": detail, "now": now},
    )
