"""A complete reading of all subscriptions: a value, and how it is announced."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from customer_provisioner.profile import SOURCE
from nexus_contracts import Event, SubscriptionsRead

_EVENT_IDS: Final = UUID("6f0b6a52-6d0e-4c0b-9a58-3c5be0a7e1d4")
"""The namespace of these events' ids; it may be any, and must never change."""


@dataclass(frozen=True, slots=True)
class Reading:
    """When the last complete reading of all subscriptions began, and when it ended."""

    began_at: datetime
    ended_at: datetime


def announcement(reading: Reading) -> Event[SubscriptionsRead]:
    """Return the event that announces a reading; made again, it is the same event."""
    return Event.of(
        SubscriptionsRead(began_at=reading.began_at, ended_at=reading.ended_at),
        source=SOURCE,
        id=uuid5(_EVENT_IDS, f"{SubscriptionsRead.TYPE}:{reading.began_at.isoformat()}"),
        time=reading.ended_at,
    )
