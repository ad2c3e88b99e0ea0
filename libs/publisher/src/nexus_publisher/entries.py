"""An event that waits to be sent, and what the places where it waits have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it is sent, always with the same bytes.

    ``recorded_at`` is in seconds since 1970. ``row`` is its row in the spool, if it is there.
    """

    event_id: UUID
    type: str
    body: bytes = field(repr=False)
    recorded_at: float
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many events wait, and when the oldest was recorded, in seconds since 1970."""

    events: int = 0
    oldest_at: float | None = None


class Store(Protocol):
    """Where events wait: the memory or the spool."""

    def types(self) -> Sequence[str]:
        """Return the types of which events wait."""

    def read(self, event_type: str, events: int, size: int) -> list[Entry]:
        """Return the oldest of a type: up to ``events`` and ``size`` bytes, but at least one."""

    def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries that were confirmed or refused."""
