"""What follows after an attempt to publish a row: published, set aside, refused or tried again.

Decisions only, without I/O.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

from nexus_contracts import ContractError, read_event
from nexus_messaging.backoff import pause_after
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.topology import OUTSIDE_EVENTS

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 300.0
"""Seconds between attempts to publish an event that is refused: permissions, queues or a key may be
corrected at any time."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the outbox. ``body`` is None if it is larger than the contract allows."""

    id: UUID
    attempts: int
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """A row whose event is valid: the type and time of the event, and its bytes."""

    row: Row
    body: bytes = field(repr=False)
    type: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has confirmed the event, or the events API has accepted it."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Invalid:
    """The event breaks its contract: it is set aside until an operator corrects it."""

    id: UUID
    fault: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker or the events API refuses this event: it is tried again after ``pause``, alone."""

    id: UUID
    fault: str
    pause: timedelta


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The broker is away or in alarm, or the events API can't publish: no event is at fault."""

    id: UUID


RowOutcome = Sent | Invalid | Refused | Unanswered


def read_row(row: Row) -> Ready | Invalid:
    """Read the event of a row by its contract.

    The text of a fault names fields and rules, and no value.
    """
    if row.body is None:
        return Invalid(row.id, "the body is too large")
    try:
        event = read_event(row.body, OUTSIDE_EVENTS)
    except ContractError as error:
        return Invalid(row.id, str(error))
    if event.id != row.id:
        return Invalid(row.id, "id: is not the id of the row")
    return Ready(row, row.body, event.type, event.time)


def outcome_of(row: Row, error: PublishError | None, *, answers: bool) -> RowOutcome:
    """Decide what follows after one attempt; ``answers``: whether the other side is there.

    The first refusal may be a neighbour's fault: a forbidden event closes the channel of all that
    are published together. So its event is tried again at once, but alone.
    """
    if error is None:
        return Sent(row.id)
    if not answers:
        return Unanswered(row.id)
    pause = pause_after(row.attempts - 1, FIRST_PAUSE, MAX_PAUSE) if row.attempts else 0.0
    return Refused(row.id, str(error), timedelta(seconds=pause))


def read_answer(status: int, body: bytes, events: int) -> dict[int, str] | PublishError:
    """Read the events API's answer to a batch of ``events``.

    Returns:
        Nothing if it was published; the events it refuses, by index, with field and rule; or the
        error of an API that can't publish now, or not with this key. A 202 without the number of
        events is somebody else's, such as a gateway's.
    """
    refused: dict[int, str] = {}
    try:
        answer = json.loads(body)
        if status == HTTPStatus.ACCEPTED and answer["accepted"] == events:
            return {}
        for each in answer["errors"]:
            if each["index"] in range(events):
                refused.setdefault(each["index"], f"{each['field']}: {each['rule']}")
    except (ValueError, KeyError, TypeError, RecursionError):
        refused = {}
    return refused or PublishTimeoutError(f"the events API answers {status}")
