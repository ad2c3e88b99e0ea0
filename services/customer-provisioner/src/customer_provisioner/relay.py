"""Publishes facts that other services must know: until each is confirmed, and again on request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog
from pydantic import ValidationError

from customer_provisioner.metrics import Metrics
from nexus_contracts import Event
from nexus_contracts.wording import describe
from nexus_messaging.errors import PublishError
from nexus_messaging.outage_log import OutageLog
from nexus_messaging.outgoing import OutgoingEvent, send, send_all
from nexus_messaging.publisher import Publisher
from nexus_service.console import Steps

BATCH_SIZE: Final = 100
"""Facts that one round publishes, or one page reads."""

FactT = TypeVar("FactT")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Announced(Generic[FactT]):
    """One kind of fact that is announced, and where it waits.

    Attributes:
        event: The event's name, such as ``customer.provisioned``.
        announcement: The event of a fact; made again, it is the same event.
        parent: The trace context in which the fact was stored, if it was traced.
        unannounced: Returns at most so many facts that are not announced yet, oldest first.
        mark: Marks facts as announced; returns how many were marked.
        since: Returns a page of facts announced since a time or not yet, after the last one of
            the page before.
    """

    event: str
    announcement: Callable[[FactT], Event[Any]]
    parent: Callable[[FactT], str | None]
    unannounced: Callable[[int], Awaitable[Sequence[FactT]]]
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
        self._publisher = publisher
        self._metrics = metrics
        self._now = now
        self._broken = 0
        self._outage = OutageLog(self._log_failure, self._log_recovery)

    async def publish_unannounced(self) -> bool:
        """Do one round: publish up to ``BATCH_SIZE`` facts, and mark those confirmed.

        Returns:
            Whether there may be more to publish at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        facts = self._facts
        waiting = await facts.unannounced(BATCH_SIZE)
        sendings = self._sendings(waiting)
        errors = await send_all(self._publisher, [each for _, each in sendings])
        confirmed = [
            fact for (fact, _), error in zip(sendings, errors, strict=True) if error is None
        ]
        self._outage.round(errors)
        marked = await facts.mark(confirmed, self._now()) if confirmed else 0
        self._metrics.announced(facts.event, len(confirmed), left=len(waiting) - len(confirmed))
        return marked == BATCH_SIZE

    def _sendings(self, waiting: Sequence[FactT]) -> list[tuple[FactT, OutgoingEvent]]:
        """Return the events of facts; one that breaks a rule of its event holds up no other."""
        sendings: list[tuple[FactT, OutgoingEvent]] = []
        broken: list[str] = []
        for fact in waiting:
            try:
                event = self._facts.announcement(fact)
            except ValidationError as error:
                broken.append(describe(error))
            else:
                sendings.append((fact, OutgoingEvent(event, parent=self._facts.parent(fact))))
        if broken and len(broken) != self._broken:  # once, not in each round
            log.error(
                "announcements_invalid",
                event_name=self._facts.event,
                events=len(broken),
                broken=broken[0],
            )
        self._broken = len(broken)
        return sendings

    def _log_failure(self, errors: Sequence[PublishError]) -> None:
        cause, event = type(errors[0]).__name__, self._facts.event
        log.warning(
            "announcements_not_confirmed", event_name=event, events=len(errors), cause=cause
        )

    def _log_recovery(self, failed: int) -> None:
        log.info("announcements_confirmed_again", event_name=self._facts.event, failed=failed)


async def publish_again(
    facts: Announced[FactT],
    *,
    since: datetime,
    publisher: Publisher | None,
    per_second: float,
    progress: Steps,
) -> int:
    """Publish every fact of one kind again that was announced since a time, or not yet.

    For a consumer that was restored from an older backup. The events are the same as before, so
    that a repetition is harmless. Without a publisher the facts are only counted.

    Returns:
        The number of facts.

    Raises:
        PublishError: the broker did not confirm an event; run it again.
        DatabaseUnavailableError: the database can't be used.
    """
    count, last = 0, None
    while page := await facts.since(since, last, BATCH_SIZE):
        for fact in page:
            if publisher is not None:
                await send(publisher, facts.announcement(fact), parent=facts.parent(fact))
                await asyncio.sleep(1 / per_second)
            progress.advance()
        count += len(page)
        last = page[-1]
    return count
