"""Publishes the due events of the outbox, until each of them is confirmed."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from nexus_messaging.backoff import Backoff
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.message import Message
from nexus_messaging.outage_log import OutageLog
from nexus_messaging.publisher import Publication
from nexus_messaging.topology import EVENTS
from nexus_outbox.metrics import Metrics
from nexus_outbox.outcomes import (
    Invalid,
    Ready,
    Refused,
    Row,
    RowOutcome,
    Sent,
    Unanswered,
    outcome_of,
    read_row,
)
from nexus_outbox.storage import BATCH

RECONNECTED_WITHIN: Final = 3.0
"""Seconds after which a broker that has closed the channel counts as away: opening it again takes
some milliseconds, and a second after a failed attempt."""

CHECK_EVERY: Final = 0.05

ALONE_SECONDS: Final = 20.0
"""Seconds that one round spends on events that are published alone: with the other steps it is
shorter than the lease."""

FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 30.0
"""Seconds between rounds while the broker does not answer: in an alarm, each repetition may become
a duplicate."""

log = structlog.get_logger()


class EventPublisher(Protocol):
    """The methods of a ``Publisher`` and of an ``HttpPublisher`` that a relay uses."""

    @property
    def connected(self) -> bool:
        """Whether a publish could succeed now."""

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish concurrently; return, in the same order, the error of each or ``None``."""


class ClaimedRows(Protocol):
    """The methods of ``nexus_outbox.storage.Outbox`` that a relay uses."""

    async def claim(self) -> list[Row]:
        """Lease up to ``BATCH`` due rows."""

    async def settle(self, outcomes: Sequence[RowOutcome]) -> None:
        """Store what became of claimed rows."""


class Relay:
    """Publishes in rounds. Several relays may work on one outbox; each row has one at a time."""

    def __init__(self, outbox: ClaimedRows, publisher: EventPublisher, metrics: Metrics) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._metrics = metrics
        self._outage = OutageLog(_log_failure, _log_recovery)
        self._backoff = Backoff(FIRST_PAUSE, MAX_PAUSE)
        self._pause_until = 0.0
        self._draining = False
        self._round = asyncio.Lock()

    async def publish_due(self) -> bool:
        """Do one round: publish up to ``BATCH`` due events, and store what became of each.

        Returns:
            Whether there may be more to publish at once.

        Raises:
            DatabaseUnavailableError: the database can't be used; leases end by themselves.
        """
        async with self._round:
            if self._draining or not self._publisher.connected or self._pauses():
                return False
            rows = await self._outbox.claim()
            read = [read_row(row) for row in rows]
            invalid = [each for each in read if isinstance(each, Invalid)]
            ready = [each for each in read if isinstance(each, Ready)]
            outcomes: list[RowOutcome] = [
                *invalid,
                *await self._publish_together([each for each in ready if not each.row.attempts]),
                *await self._publish_alone([each for each in ready if each.row.attempts]),
            ]
            await self._outbox.settle(outcomes)
            self._note(outcomes)
            if any(isinstance(each, Unanswered) for each in outcomes):
                self._pause_until = time.monotonic() + self._backoff.next()
                return False
            self._backoff.reset()
            return len(rows) == BATCH

    async def drain(self, seconds: float) -> None:
        """Begin no further round, and wait until the current one has ended."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds), self._round:
                pass
        except TimeoutError:
            log.warning("drain_cut_short")

    def _pauses(self) -> bool:
        return time.monotonic() < self._pause_until

    async def _publish_together(self, ready: Sequence[Ready]) -> list[RowOutcome]:
        errors = await self._publisher.publish_all([_publication(each) for each in ready])
        self._outage.round(errors)
        answers = all(error is None for error in errors) or await self._answers(errors)
        return [
            outcome_of(each.row, error, answers=answers)
            for each, error in zip(ready, errors, strict=True)
        ]

    async def _publish_alone(self, ready: Sequence[Ready]) -> list[RowOutcome]:
        """Publish one after the other: each refusal is that event's own."""
        outcomes: list[RowOutcome] = []
        deadline = time.monotonic() + ALONE_SECONDS
        for each in ready:
            if time.monotonic() > deadline or not self._publisher.connected:
                outcomes.append(Unanswered(each.row.id))
                continue
            outcomes += await self._publish_one(each)
        return outcomes

    async def _publish_one(self, ready: Ready) -> list[RowOutcome]:
        [error] = await self._publisher.publish_all([_publication(ready)])
        answers = error is None or await self._answers([error])
        return [outcome_of(ready.row, error, answers=answers)]

    async def _answers(self, errors: Sequence[PublishError | None]) -> bool:
        """Return whether the broker answers after ``errors``: not in an alarm, and connected."""
        if any(isinstance(error, PublishTimeoutError) for error in errors):
            return False
        deadline = time.monotonic() + RECONNECTED_WITHIN
        while not self._publisher.connected:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(CHECK_EVERY)
        return True

    def _note(self, outcomes: Sequence[RowOutcome]) -> None:
        self._metrics.published(sum(isinstance(each, Sent) for each in outcomes))
        invalid = [each for each in outcomes if isinstance(each, Invalid)]
        self._metrics.set_aside(len(invalid))
        for each in invalid:
            log.warning("event_set_aside", id=str(each.id), broken=each.fault)
        for other in outcomes:
            if isinstance(other, Refused) and other.pause:
                log.warning("event_refused", id=str(other.id), cause=other.fault)


def _publication(ready: Ready) -> Publication:
    message = Message(
        ready.body, message_id=str(ready.row.id), type=ready.type, timestamp=ready.time
    )
    return Publication(EVENTS, ready.type, message)


def _log_failure(errors: Sequence[PublishError]) -> None:
    log.warning("events_not_confirmed", events=len(errors), cause=str(errors[0]))


def _log_recovery(failed: int) -> None:
    log.info("events_confirmed_again", failed=failed)
