"""Bringing users who were there before this service: their events are published, at a set pace."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid5

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.profile import SOURCE, Profile, State
from customer_provisioner.user_list import Unusable
from nexus_contracts import Event, UserCreated
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import INTERNAL
from nexus_service.console import Steps


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the entries read so far; without ``execute``, ``asked`` would have been."""

    asked: int = 0
    provisioned: int = 0
    refused: int = 0
    unusable: int = 0

    @property
    def read(self) -> int:
        """The entries read."""
        return self.asked + self.provisioned + self.refused + self.unusable

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.read} read: {self.asked} without a customer, {self.provisioned} with one, "
            f"{self.refused} refused by Stripe before, {self.unusable} unusable"
        )


class Backfill:
    """Publishes ``user.created`` for listed users without a customer; repeating it is harmless.

    Without a publisher it only counts. ``progress`` is told of each entry, and why one is unusable.
    """

    def __init__(
        self,
        inquiries: Inquiries,
        publisher: Publisher | None,
        *,
        per_second: float,
        progress: Steps,
        now: Callable[[], datetime],
    ) -> None:
        self._inquiries = inquiries
        self._publisher = publisher
        self._pause = 1 / per_second
        self._progress = progress
        self._now = now

    async def run(self, entries: Iterable[UserCreated | Unusable]) -> Tally:
        """Go through the entries in order.

        Raises:
            PublishError: the broker did not confirm an event; begin again, nothing is lost by it.
            DatabaseUnavailableError: the database can't be used.
        """
        tally = Tally()
        for entry in entries:
            tally = await self._after(entry, tally)
            self._progress.advance()
        return tally

    async def _after(self, entry: UserCreated | Unusable, tally: Tally) -> Tally:
        if isinstance(entry, Unusable):
            self._progress.say(f"entry {entry.entry}: {entry.wrong}")
            return replace(tally, unusable=tally.unusable + 1)
        profile = await self._inquiries.find(entry.user_id)
        if profile is not None and profile.state is State.PROVISIONED:
            return replace(tally, provisioned=tally.provisioned + 1)
        if profile is not None and _refused(profile, entry):
            return replace(tally, refused=tally.refused + 1)
        await self._ask(entry)
        return replace(tally, asked=tally.asked + 1)

    async def _ask(self, user: UserCreated) -> None:
        if self._publisher is None:
            return
        event = Event.of(
            user,
            source=f"{SOURCE}/backfill",
            id=uuid5(user.user_id, f"{UserCreated.TYPE}/backfill"),
            time=self._now(),
        )
        await self._publisher.publish(Publication(INTERNAL, event.type, Message.of(event)))
        await asyncio.sleep(self._pause)


def _refused(profile: Profile, user: UserCreated) -> bool:
    """Tell whether asking would only have the same address refused again."""
    return profile.refused_as is not None and profile.email == user.email
