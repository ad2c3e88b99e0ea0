"""Keeps a flood of dead letters out of the dead-letter queue until an operator resumes.

On a queue for outside publishers, a flood of one source is held back: its dead letters wait in the
longest retry tier, and everything else passes. If most sources flood at once, or if a service of
this project is the only publisher, the fault is on this side: consuming the queue stops, and the
rest of the service continues.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from nexus_contracts.envelope import source_of
from nexus_contracts.wording import printable
from nexus_messaging.flood import DeadLetterCause, Flood, FloodLimit, FloodWindow
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Acknowledge, DeadLetter, Decision, HandedBack, Retry
from nexus_messaging.sources import Sources
from nexus_messaging.topology import OUTSIDE_QUEUES, TIERS

UNKNOWN_SOURCES: Final = "unknown sources"
HOW_TO_RESUME: Final = "SIGUSR1 or a restart"

MAX_NAMED_SOURCES: Final = 10
"""Sources that a remark names at most; the others are counted."""

log = structlog.get_logger()


class Watch(Protocol):
    """Shows the state of the guards."""

    def show_flood(self, queue: str, flood: Flood | None) -> None:
        """Show the flood that has stopped ``queue``; ``None`` once it is resumed."""

    def show_held_sources(self, queue: str, sources: int) -> None:
        """Show how many sources of ``queue`` are held back."""


class FloodGuard:
    """The state of one queue: the sources held back, and the flood that has stopped it."""

    def __init__(self, queue: str, limit: FloodLimit, watch: Watch) -> None:
        self.flood: Flood | None = None
        self._queue = queue
        self._limit = limit
        self._watch = watch
        self._window = FloodWindow(limit)
        self._sources = Sources(limit) if queue in OUTSIDE_QUEUES else None
        self._allowed = asyncio.Event()
        self._allowed.set()

    @property
    def held(self) -> Mapping[str | None, Flood]:
        """The sources whose dead letters are held back, and why."""
        return {} if self._sources is None else self._sources.held

    def overrule(self, delivery: Delivery, decision: Decision) -> HandedBack | None:
        """Count a decision; return the outcome that replaces it, if it is a dead letter of a flood.

        Two kinds do not count, and pass while a source is held back. The operator who moved a
        message looks for it in the dead-letter queue. A message that crashes consumers is not read
        for its source; its copy would crash as many again, and at ten processes for each there is
        no flood of them.
        """
        match decision:
            case DeadLetter() if self.flood is not None:
                return HandedBack()
            case DeadLetter(reason=Reason.CRASHED_CONSUMER) | Retry():
                pass
            case _ if delivery.moved:
                pass
            case Acknowledge(source):
                self.count_processed([source])
            case DeadLetter(reason=reason, subject=subject):
                return self._count_dead_letter(
                    DeadLetterCause(reason, subject, self._source(delivery))
                )
        return None

    def count_processed(self, sources: list[str | None]) -> None:
        """Count messages of ``sources`` that were processed, in their order."""
        self._window.count_processed(len(sources))
        if self._sources is not None:
            self._sources.count_processed(sources)

    async def wait_until_resumed(self) -> None:
        """Wait until the queue may be consumed; return at once if it is not stopped."""
        await self._allowed.wait()

    def resume(self) -> None:
        """Let the queue be consumed again, with new windows and no source held back."""
        self.flood = None
        self._window = FloodWindow(self._limit)
        if self._sources is not None:
            self._sources.resume()
        self._allowed.set()
        self._watch.show_flood(self._queue, None)
        self._watch.show_held_sources(self._queue, 0)

    def _source(self, delivery: Delivery) -> str | None:
        return None if self._sources is None else source_of(delivery.body)

    def _count_dead_letter(self, letter: DeadLetterCause) -> HandedBack | None:
        if self._sources is None:
            self._window.count_dead_letter(letter)
            if flood := self._window.flood():
                self._stop_queue(flood)
            return None
        source = self._sources.known_as(letter.source)
        if source in self.held:
            return HandedBack(TIERS[-1])
        self._window.count_dead_letter(letter)
        of_source = self._sources.count_dead_letter(letter)
        flood = self._window.flood()
        if flood is not None and self._sources.most_sources_flood(self._window.letters):
            self._stop_queue(flood)
        elif of_source is not None:
            self._sources.held[source] = of_source
            self._hold_source(source, of_source)
        return None

    def _stop_queue(self, flood: Flood) -> None:
        self.flood = flood
        self._allowed.clear()
        self._watch.show_flood(self._queue, flood)
        log.error(
            "consumption_stopped",
            queue=self._queue,
            dead=flood.dead,
            window=flood.window,
            share=round(flood.dead / flood.window, 2),
            reason=flood.reason.value,
            resume=HOW_TO_RESUME,
        )

    def _hold_source(self, source: str | None, flood: Flood) -> None:
        self._watch.show_held_sources(self._queue, len(self.held))
        log.error(
            "source_held_back",
            queue=self._queue,
            source=name_of(source),
            dead=flood.dead,
            window=flood.window,
            reason=flood.reason.value,
            resume=HOW_TO_RESUME,
        )


class FloodGuards:
    """The guards of all queues of a service."""

    def __init__(self, limit: FloodLimit, watch: Watch) -> None:
        self._limit = limit
        self._watch = watch
        self._guards: dict[str, FloodGuard] = {}

    def of(self, queue: str) -> FloodGuard:
        """Return the guard of ``queue``, always the same one."""
        if queue not in self._guards:
            self._guards[queue] = FloodGuard(queue, self._limit, self._watch)
        return self._guards[queue]

    def resume(self) -> None:
        """Resume every stopped queue and release every held source."""
        stopped = {name for name, each in self._guards.items() if each.flood is not None}
        held = {name for name, each in self._guards.items() if each.held}
        log.info("resume_asked_for", stopped=sorted(stopped), held_back=sorted(held))
        for name in stopped | held:
            self._guards[name].resume()

    async def remark(self) -> str | None:
        """Return which queues are stopped, which sources are held back, and why; else ``None``."""
        remarks = [
            f"{name} is stopped: {each.flood}"
            for name, each in self._guards.items()
            if each.flood is not None
        ]
        remarks += [
            f"{name} holds back dead letters of {_list_sources(each.held)}"
            for name, each in self._guards.items()
            if each.held
        ]
        return "; ".join(remarks) or None


def name_of(source: str | None) -> str:
    """Return a source in printable form; by contract it has at most 200 characters."""
    return UNKNOWN_SOURCES if source is None else printable(source)


def _list_sources(held: Mapping[str | None, Flood]) -> str:
    named = [
        f"{name_of(source)} ({flood})" for source, flood in list(held.items())[:MAX_NAMED_SOURCES]
    ]
    more = len(held) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
