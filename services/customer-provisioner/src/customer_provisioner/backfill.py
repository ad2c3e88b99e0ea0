"""Publishes ``user.created`` for users that were there before this service, at a set rate."""

import asyncio
from collections.abc import AsyncIterable, Callable
from dataclasses import astuple, dataclass
from datetime import datetime
from uuid import uuid5

from typing_extensions import override

from customer_provisioner.profile import SOURCE, Profile, State
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.user_list import UnusableEntry
from nexus_contracts import Event, UserCreatedV1, UserCreatedV2
from nexus_contracts.user_created import oldest
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import INTERNAL
from nexus_service.console import Steps


@dataclass(slots=True)
class Tally:
    """How many entries of each kind were read."""

    without_customer: int = 0
    provisioned: int = 0
    refused: int = 0
    conflicting: int = 0
    unusable: int = 0

    @override
    def __str__(self) -> str:
        """Return the tally in words."""
        read = sum(astuple(self))
        return (
            f"{read} read: {self.without_customer} without a customer, {self.provisioned} with "
            f"one, {self.refused} refused by Stripe before, {self.conflicting} with another "
            f"than listed, {self.unusable} unusable"
        )


async def backfill(
    entries: AsyncIterable[UserCreatedV2 | UnusableEntry],
    reader: ProfileReader,
    publisher: Publisher | None,
    *,
    per_second: float,
    progress: Steps,
    now: Callable[[], datetime],
) -> Tally:
    """Publish ``user.created`` for each listed user without a customer, in the list's order.

    A repetition is harmless. Without a publisher the users are only counted. ``progress`` shows why
    an entry is unusable, and which user has another customer than the list says.

    Raises:
        PublishError: the broker did not confirm an event; run it again.
        DatabaseUnavailableError: the database can't be used.
    """
    tally = Tally()
    async for entry in entries:
        if isinstance(entry, UnusableEntry):
            tally.unusable += 1
            progress.say(f"entry {entry.number}: {entry.fault}")
            progress.advance()
            continue
        profile = await reader.find(entry.user_id)
        if profile is not None and profile.state is State.PROVISIONED:
            if entry.stripe_customer_id in (None, profile.stripe_customer_id):
                tally.provisioned += 1
            else:
                tally.conflicting += 1
                progress.say(f"user {entry.user_id} has the customer {profile.stripe_customer_id}")
        elif profile is not None and _would_be_refused_again(profile, entry):
            tally.refused += 1
        else:
            tally.without_customer += 1
            if publisher is not None:
                await publisher.publish(_publication(entry, now()))
                await asyncio.sleep(1 / per_second)
        progress.advance()
    return tally


def _would_be_refused_again(profile: Profile, user: UserCreatedV2) -> bool:
    return (
        profile.refused_as is not None
        and user.email in (None, profile.email)
        and user.stripe_customer_id in (None, profile.link_to)
    )


def _publication(user: UserCreatedV2, time: datetime) -> Publication:
    data: UserCreatedV1 | UserCreatedV2 = oldest(user)
    event = Event.of(
        data,
        source=f"{SOURCE}/backfill",
        id=uuid5(user.user_id, f"{data.TYPE}/backfill"),
        time=time,
    )
    return Publication(INTERNAL, event.type, Message.of(event))
