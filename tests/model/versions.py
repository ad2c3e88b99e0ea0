"""What becomes of a tool run of any version, by what the ledger has of its id already.

The one home of this table: `docs/states.md` is made from it, and the ledger is held against it in
all orders and batches. The service does not use it: it inserts, and compares what it met.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Stored(StrEnum):
    """What the ledger has of an id."""

    NOTHING = "nothing"
    BARE = "a run without details"
    DETAILED = "a run with details"


class Arriving(StrEnum):
    """A message with that id, compared with what is stored."""

    FIRST = "version 1"
    SECOND = "version 2"
    SAME_DETAILS = "version 2 with the same details"
    OTHER_DETAILS = "version 2 with other details"
    OTHER_RUN = "either version of another run"


class Outcome(StrEnum):
    """What becomes of the message."""

    RECORDED = "recorded"
    DETAILS_ADDED = "its details are added"
    DUPLICATE = "duplicate"
    TAKEN = "dead letter `event_id_taken`"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A row of the table."""

    stored: Stored
    arriving: Arriving
    outcome: Outcome
    then: Stored


ARRIVALS: Final = (
    Arrival(Stored.NOTHING, Arriving.FIRST, Outcome.RECORDED, Stored.BARE),
    Arrival(Stored.NOTHING, Arriving.SECOND, Outcome.RECORDED, Stored.DETAILED),
    Arrival(Stored.BARE, Arriving.FIRST, Outcome.DUPLICATE, Stored.BARE),
    Arrival(Stored.BARE, Arriving.SECOND, Outcome.DETAILS_ADDED, Stored.DETAILED),
    Arrival(Stored.BARE, Arriving.OTHER_RUN, Outcome.TAKEN, Stored.BARE),
    Arrival(Stored.DETAILED, Arriving.FIRST, Outcome.DUPLICATE, Stored.DETAILED),
    Arrival(Stored.DETAILED, Arriving.SAME_DETAILS, Outcome.DUPLICATE, Stored.DETAILED),
    Arrival(Stored.DETAILED, Arriving.OTHER_DETAILS, Outcome.TAKEN, Stored.DETAILED),
    Arrival(Stored.DETAILED, Arriving.OTHER_RUN, Outcome.TAKEN, Stored.DETAILED),
)

_BY_CASE: Final = {(each.stored, each.arriving): each for each in ARRIVALS}


@dataclass(frozen=True, slots=True)
class Run:
    """A message, or what is stored of an id: the run as version 1 has it, and its details."""

    meaning: str
    details: str | None = None


def arrive(stored: Run | None, message: Run) -> tuple[Outcome, Run]:
    """Return what becomes of ``message`` by the table, and what is stored then."""
    row = _BY_CASE[_stored(stored), _arriving(stored, message)]
    match row.outcome:
        case Outcome.RECORDED:
            return row.outcome, message
        case Outcome.DETAILS_ADDED if stored:
            return row.outcome, Run(stored.meaning, message.details)
        case outcome:
            return outcome, stored or message


def arrive_in_turn(messages: Iterable[Run]) -> tuple[list[Outcome], Run | None]:
    """Return what becomes of messages with one id, one after the other, and what is stored then."""
    outcomes: list[Outcome] = []
    stored: Run | None = None
    for message in messages:
        outcome, stored = arrive(stored, message)
        outcomes.append(outcome)
    return outcomes, stored


def _stored(stored: Run | None) -> Stored:
    if stored is None:
        return Stored.NOTHING
    return Stored.BARE if stored.details is None else Stored.DETAILED


def _arriving(stored: Run | None, message: Run) -> Arriving:
    if stored and stored.meaning != message.meaning:
        return Arriving.OTHER_RUN
    if message.details is None:
        return Arriving.FIRST
    if stored is None or stored.details is None:
        return Arriving.SECOND
    same = stored.details == message.details
    return Arriving.SAME_DETAILS if same else Arriving.OTHER_DETAILS


def markdown() -> Iterator[str]:
    """Yield the lines of the table for people to read."""
    yield "| the ledger has | a message comes | it is | the ledger then has |"
    yield "|---|---|---|---|"
    for each in ARRIVALS:
        yield f"| {each.stored} | {each.arriving} | {each.outcome} | {each.then} |"
