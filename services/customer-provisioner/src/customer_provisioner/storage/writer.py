"""The SQL that changes profiles: each change is one short transaction and has its history entry.

An attempt changes a profile only if generation and key are still those that it works on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from customer_provisioner.linking import LinkFault
from customer_provisioner.profile import (
    LEASE,
    SWEEP_DELAY,
    Attempt,
    Create,
    Link,
    LinkRefused,
    LookUp,
    NextStep,
    Profile,
    create_request,
    next_step,
)
from customer_provisioner.storage import statements as sql
from customer_provisioner.storage.reader import profile_from
from customer_provisioner.storage.statements import Failure, KeepResult, Step, StoreResult
from nexus_contracts import UserCreatedV2
from nexus_database import Database
from nexus_messaging.tracing import span_traceparent


class ProfileWriter:
    """Changes the service's database.

    Every method raises:
        DatabaseUnavailableError: the database can't be used.
        RowsBusyError: another transaction holds the user's row.
        RowRefusedError: the database can never store these values.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(
        self, user: UserCreatedV2, now: datetime, *, organisation: bool = False
    ) -> KeepResult:
        """Store ``user`` and the request that will create its customer, unless it is stored.

        An ``organisation`` is due at once, since no message takes care of it.

        The first address stays, with two exceptions: an address that Stripe refused is replaced,
        and a user without one gets it until a customer is requested. Likewise the first customer to
        be linked stays, unless it is refused.
        """
        link_to = user.stripe_customer_id

        async def work(connection: AsyncConnection) -> KeepResult:
            values = {
                "email": user.email,
                "name": user.name,
                "create_request": json.dumps(create_request(user)),
            }
            wanted = {"state": _unserved(link_to), "link_to": link_to}
            times = {"due_at": now if organisation else now + SWEEP_DELAY, "now": now}
            who = {"user_id": user.user_id, "organisation": organisation}
            row = {**values, **wanted, **times, **who}
            if (await connection.execute(sql.INSERT, row)).first() is not None:
                await _record(connection, user.user_id, 1, Step.KEPT, link_to, now)
                return KeepResult.NEW
            profile = await _lock(connection, user.user_id)
            if organisation and not profile.organisation:
                return KeepResult.OTHER_KIND
            if _may_link(profile, link_to):
                step, attempt = Step.LINK_ASKED, profile.attempt
                await _change(
                    connection, sql.ASK_LINK, attempt, now, step, link_to, link_to=link_to
                )
            if user.email is None or profile.email == user.email:
                return KeepResult.SAME
            if not _may_replace_address(profile):
                return KeepResult.ADDRESS_IGNORED
            attempt, step = profile.attempt, Step.ADDRESS_REPLACED
            await _change(connection, sql.REPLACE_ADDRESS, attempt, now, step, **values)
            return KeepResult.ADDRESS_REPLACED

        return await self._database.run(work)

    async def correct_address(self, user_id: UUID, now: datetime) -> bool:
        """Have a customer created with the present address of a user whose first one was refused.

        Returns:
            Whether it was so. It is not for an unknown user, or if no other address is known.
        """
        return await self._database.run(lambda c: _correct_address(c, user_id, now))

    async def claim(self, user_id: UUID, now: datetime) -> NextStep:
        """Decide the next step for a stored user and, if it needs a call, claim the user for it."""
        end = now + LEASE

        async def work(connection: AsyncConnection) -> NextStep:
            profile = await _lock(connection, user_id)
            step = next_step(profile, now)
            match step:
                case Create(attempt):
                    first = Step.CREATE_SENT if profile.call_started_at is None else None
                    await _change(connection, sql.CLAIM_CREATE, attempt, now, first, lease_end=end)
                case Link(attempt, _, customer_id):
                    if await _is_taken(connection, customer_id, user_id):
                        return await _refuse_link(connection, attempt, LinkFault.TAKEN, now)
                    await _change(connection, sql.CLAIM_CREATE, attempt, now, lease_end=end)
                case LookUp(attempt):
                    await _change(connection, sql.CLAIM_LOOK_UP, attempt, now, lease_end=end)
                    former = await connection.scalars(sql.FORMER, {"user_id": user_id})
                    return replace(step, former=tuple(former))
            return step

        return await self._database.run(work)

    async def store(
        self, attempt: Attempt, customer_id: str, how: Step, now: datetime
    ) -> StoreResult:
        """Store the customer of the attempt's generation and its trace; the first one stays."""
        values = {"customer_id": customer_id, "traceparent": span_traceparent()}

        async def work(connection: AsyncConnection) -> StoreResult:
            profile = await _lock(connection, attempt.user_id)
            if profile.stripe_customer_id == customer_id:
                return StoreResult.ALREADY_STORED
            if profile.stripe_customer_id or profile.generation != attempt.generation:
                return StoreResult.SURPLUS
            if await _is_taken(connection, customer_id, attempt.user_id):
                await _refuse_link(connection, profile.attempt, LinkFault.TAKEN, now)
                return StoreResult.TAKEN
            await _change(connection, sql.STORE, profile.attempt, now, how, customer_id, **values)
            await connection.execute(sql.SEND_CHANGES, {"user_id": attempt.user_id, "now": now})
            customer = {"user_id": attempt.user_id, "customer_id": customer_id}
            await connection.execute(sql.GIVE_SUBSCRIPTIONS, customer)
            return StoreResult.STORED

        return await self._database.run(work)

    async def fail(self, attempt: Attempt, failure: Failure, fault: str, now: datetime) -> None:
        """End an attempt that failed with ``fault``, a text without any value.

        A refused user whose address has changed meanwhile is due again with the present one.
        """
        statement, step = sql.FAIL[failure]
        values = {"fault": fault, "due_at": now + SWEEP_DELAY}

        async def work(connection: AsyncConnection) -> None:
            await _change(connection, statement, attempt, now, step, fault, **values)
            if failure is Failure.REFUSED:
                await _correct_address(connection, attempt.user_id, now)

        await self._database.run(work)

    async def renew_key(self, attempt: Attempt, now: datetime) -> None:
        """End a look-up that found no customer: the next creation has a new key."""
        step, due_at = Step.NOT_FOUND, now + SWEEP_DELAY
        await self._database.run(
            lambda connection: _change(connection, sql.RENEW_KEY, attempt, now, step, due_at=due_at)
        )

    async def begin_generation(
        self, profile: Profile, now: datetime, *, link_to: str | None = None
    ) -> bool:
        """Begin the next generation of a user: a new customer, or the one to be linked.

        Returns:
            Whether it was begun. It is not if the profile has changed since it was read.
        """
        step, former = Step.REPROVISION_ASKED, profile.stripe_customer_id
        values = {"state": _unserved(link_to), "link_to": link_to}
        return await self._database.run(
            lambda connection: _change(
                connection, sql.NEXT_GENERATION, profile.attempt, now, step, former, **values
            )
        )

    async def give_up_link(self, profile: Profile, now: datetime) -> bool:
        """Have a customer created for a user whose customer to be linked was refused.

        Returns:
            Whether it was so. It is not if the profile has changed since it was read.
        """
        step, refused = Step.REPROVISION_ASKED, profile.link_to
        return await self._database.run(
            lambda connection: _change(
                connection, sql.GIVE_UP_LINK, profile.attempt, now, step, refused
            )
        )

    async def note_refused_link(self, user_id: UUID, customer_id: str, now: datetime) -> None:
        """Record that a user with a customer was to be linked to another."""

        async def work(connection: AsyncConnection) -> None:
            generation = (await _lock(connection, user_id)).generation
            step = Step.LINK_REFUSED
            await _record(connection, user_id, generation, step, customer_id, now)

        await self._database.run(work)

    async def note_deleted_customer(self, customer_id: str, now: datetime) -> UUID | None:
        """Record that Stripe has deleted a customer.

        Returns:
            The account whose present customer it is, if that was not known.
        """
        values = {"customer_id": customer_id, "now": now}

        async def work(connection: AsyncConnection) -> UUID | None:
            row = (await connection.execute(sql.NOTE_DELETED, values)).one_or_none()
            if row is None:
                return None
            step, account_id = Step.CUSTOMER_DELETED, UUID(str(row.user_id))
            await _record(connection, account_id, row.generation, step, customer_id, now)
            return account_id

        return await self._database.run(work)

    async def is_taken(self, customer_id: str, user_id: UUID) -> bool:
        """Return whether a customer is another user's than ``user_id``, or is being linked."""
        return await self._database.run(
            lambda connection: _is_taken(connection, customer_id, user_id)
        )

    async def mark_announced(self, announced: Sequence[Profile], now: datetime) -> int:
        """Mark those that no other transaction holds as announced; return how many were marked."""
        user_ids = [profile.user_id for profile in announced]

        async def work(connection: AsyncConnection) -> int:
            free = set(await connection.scalars(sql.LOCK_FREE, {"user_ids": user_ids}))
            marked = 0
            for each in announced:
                if each.user_id in free:
                    marked += await _change(
                        connection, sql.MARK_ANNOUNCED, each.attempt, now, Step.ANNOUNCED
                    )
            return marked

        return await self._database.run(work)


def _unserved(link_to: str | None) -> str:
    return "provisioning" if link_to is None else "linking"


def _may_link(profile: Profile, customer_id: str | None) -> bool:
    if customer_id is None or profile.stripe_customer_id is not None:
        return False
    refused = profile.refused_as is not None and profile.link_to != customer_id
    return profile.link_to is None or refused


def _may_replace_address(profile: Profile) -> bool:
    never_sent = profile.stripe_customer_id is None and profile.call_started_at is None
    return profile.refused_as is not None or (profile.email is None and never_sent)


async def _is_taken(connection: AsyncConnection, customer_id: str, user_id: UUID) -> bool:
    values = {"customer_id": customer_id, "user_id": user_id}
    await connection.execute(sql.LOCK_CUSTOMER, {"customer_id": customer_id})
    return bool(await connection.scalar(sql.TAKEN, values))


async def _refuse_link(
    connection: AsyncConnection, attempt: Attempt, fault: LinkFault, now: datetime
) -> LinkRefused:
    statement, step = sql.FAIL[Failure.REFUSED]
    values = {"fault": fault.value, "due_at": now}
    await _change(connection, statement, attempt, now, step, fault.value, **values)
    return LinkRefused(fault)


async def _correct_address(connection: AsyncConnection, user_id: UUID, now: datetime) -> bool:
    row = (await connection.execute(sql.LOCK, {"user_id": user_id})).one_or_none()
    email: str | None = await connection.scalar(sql.PRESENT_ADDRESS, {"user_id": user_id})
    if row is None or email is None:
        return False
    profile = profile_from(row)
    if profile.refused_as is None or profile.link_to or profile.email == email:
        return False
    request = json.dumps({**profile.create_request, "email": email})
    values = {"email": email, "create_request": request}
    attempt, step = profile.attempt, Step.ADDRESS_REPLACED
    return await _change(connection, sql.CORRECT_ADDRESS, attempt, now, step, **values)


async def _lock(connection: AsyncConnection, user_id: UUID) -> Profile:
    return profile_from((await connection.execute(sql.LOCK, {"user_id": user_id})).one())


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
        sql.RECORD,
        {"user_id": user_id, "generation": generation, "step": step, "detail": detail, "now": now},
    )
