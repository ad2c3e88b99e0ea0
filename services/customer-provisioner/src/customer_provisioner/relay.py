"""Publishes facts that other services must know: until each is confirmed, and again on request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import structlog
from pydantic import ValidationError

from customer_provisioner.metrics import Metrics
from nexus_contracts import Event
from nexus_contracts.wording import describe
from nexus_messaging.batch_sender import BatchSender
from nexus_messaging.errors import PublishError
from nexus_messaging.outgoing import OutgoingEvent, send
from nexus_messaging.publisher import Publisher
from nexus_service.console import Steps

BATCH_SIZE: Final = 100
"""Facts that one round publishes, or one page reads."""

ASIDE: Final = timedelta(minutes=10)
"""For so long facts that break a rule of their event are not read again, so that any number of them
holds up no other."""

FactT = TypeVar("FactT")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Announced(Generic[FactT]):
    """One kind of fact that is announced, and where it waits.

    Attributes:
        event: The event's name, such as ``customer.provisioned``.
        announcement: The event of a fact; made again, it is the same event.
        parent: The trace context in which the fact was stored, if it was traced.
        unannounced: Returns at most so many facts that are not announced yet, oldest first, but
            for some.
        mark: Marks facts as announced; returns how many were marked.
        since: Returns a page of facts announced since a time or not yet, after the last one of
            the page before.
    """

    event: str
    announcement: Callable[[FactT], Event[Any]]
    parent: Callable[[FactT], str | None]
    unannounced: Callable[[int, Sequence[FactT]], Awaitable[Sequence[FactT]]]
    mark: Callable[[Sequence[FactT], datetime], Awaitable[int]]
    since: Callable[[datetime, FactT | None, int], Awaitable[Sequence[FactT]]]


class Relay(Generic[FactT]):
    """Publishes the facts of one kind that are not announced yet, until the broker confirms them.

    Two relays may publish one fact twice: the event is the same except for its trace, and consumers
    apply only a higher generation or revision.
    """

    def __init__(
        self,
        facts: Announced[FactT],
        publisher: Publisher,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._facts = facts
        self._metrics = metrics
        self._now = now
        self._aside: list[FactT] = []
        self._aside_until = now()
        self._sender = BatchSender(publisher, self._log_failure, self._log_recovery)

    async def publish_unannounced(self) -> bool:
        """Do one round: publish up to ``BATCH_SIZE`` facts, and mark those confirmed.

        Returns:
            Whether there may be more to publish at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        facts, now = self._facts, self._now()
        if now >= self._aside_until:
            self._aside, self._aside_until = [], now + ASIDE
        waiting = await facts.unannounced(BATCH_SIZE, self._aside)
        events, broken = announceable(facts, waiting)
        if broken:
            self._log_broken([rule for _, rule in broken])
        self._aside += [fact for fact, _ in broken]
        sendings = [
            (fact, OutgoingEvent(event, parent=facts.parent(fact))) for fact, event in events
        ]
        confirmed, failed = await self._sender.send(sendings)
        marked = await facts.mark(confirmed, self._now()) if confirmed else 0
        left = len(failed) + len(self._aside)
        self._metrics.announced(facts.event, len(confirmed), left=left)
        return marked + len(broken) == BATCH_SIZE

    def _log_broken(self, rules: Sequence[str]) -> None:
        event = self._facts.event
        log.error("announcements_invalid", event_name=event, events=len(rules), broken=rules[0])

    def _log_failure(self, errors: Sequence[PublishError]) -> None:
        cause, event = type(errors[0]).__name__, self._facts.event
        log.warning(
            "announcements_not_confirmed", event_name=event, events=len(errors), cause=cause
        )

    def _log_recovery(self, failed: int) -> None:
        log.info("announcements_confirmed_again", event_name=self._facts.event, failed=failed)


def announceable(
    facts: Announced[FactT], waiting: Sequence[FactT]
) -> tuple[list[tuple[FactT, Event[Any]]], list[tuple[FactT, str]]]:
    """Return facts with their events; apart from them those that break a rule, and which."""
    events: list[tuple[FactT, Event[Any]]] = []
    broken: list[tuple[FactT, str]] = []
    for fact in waiting:
        try:
            events.append((fact, facts.announcement(fact)))
        except ValidationError as error:
            broken.append((fact, describe(error)))
    return events, broken


@dataclass(frozen=True, slots=True)
class PublishedAgain:
    """How many facts were published again, and the rules that the others break."""

    number: int
    broken: Sequence[str]


async def publish_again(
    facts: Announced[FactT],
    *,
    since: datetime,
    publisher: Publisher | None,
    per_second: float,
    progress: Steps,
) -> PublishedAgain:
    """Publish every fact of one kind again that was announced since a time, or not yet.

    For a consumer that was restored from an older backup. The events are the same as before, so
    that a repetition is harmless. Without a publisher the facts are only counted.

    Raises:
        PublishError: the broker did not confirm an event; run it again.
        DatabaseUnavailableError: the database can't be used.
    """
    number, last = 0, None
    rules: list[str] = []
    while page := await facts.since(since, last, BATCH_SIZE):
        events, broken = announceable(facts, page)
        for fact, event in events:
            if publisher is not None:
                await send(publisher, event, parent=facts.parent(fact))
                await asyncio.sleep(1 / per_second)
            progress.advance()
        number += len(events)
        rules += [rule for _, rule in broken]
        last = page[-1]
    return PublishedAgain(number, rules)
