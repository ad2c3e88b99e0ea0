"""What a call returns: the event is on disk, in memory, or dropped with a reason."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class DropReason(StrEnum):
    """Why an event was dropped."""

    INVALID = "invalid"
    """The arguments break the contract."""
    FULL = "full"
    """Spool and memory are full or can't be written."""
    REFUSED = "refused"
    """The events API or the broker will never accept this event."""
    CLOSED = "closed"
    """The publisher was closed before the event could be stored or sent."""
    INTERNAL = "internal"
    """A defect of this package."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The event is in the spool on disk, where only a confirmed event is deleted.

    ``metadata_left_out``: it was no JSON object or too large; the rest of the event is complete.
    """

    event_id: UUID
    metadata_left_out: bool = False


@dataclass(frozen=True, slots=True)
class InMemory:
    """The event is in memory only, and lost if the process is killed before it is sent.

    It is moved to the spool, if there is one, as soon as that can be written.
    """

    event_id: UUID
    metadata_left_out: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """The event will not be sent. ``detail`` names fields and rules, never a value.

    ``body`` is the event as it would have been sent, if it could be written; it may be personal.
    """

    event_id: UUID
    event_type: str
    reason: DropReason
    detail: str
    body: bytes | None = field(default=None, repr=False)


Result = Stored | InMemory | Dropped
