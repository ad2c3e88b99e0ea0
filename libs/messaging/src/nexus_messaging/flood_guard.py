"""Keeping a flood of dead letters out of the dead-letter queue, until a person resumes.

On a queue that others publish to, the flood of one source is that source's: its dead letters are
held back in the longest retry tier, and everything else passes. When most sources flood at once, or
the queue is filled by a service of ours alone, the fault is our own: the queue is not consumed any
more, and everything else of the service goes on.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from nexus_contracts.envelope import source_of
from nexus_contracts.wording import printable
from nexus_messaging.flood import Flood, FloodLimit, FloodWindow, Letter
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Acknowledge, DeadLetter, Decision, HandedBack, Retry
from nexus_messaging.sources import Sources
from nexus_messaging.topology import OUTSIDE_QUEUES, TIERS

UNKNOWN: Final = "unknown sources"
HOW_TO_RESUME: Final = "SIGUSR1 or a restart"

MOST_NAMED: Final = 10
"""Sources that a remark names; it says how many more there are."""

log = structlog.get_logger()


class Watch(Protocol):
    """Where the state of the guards is shown."""

    def flooded(self, queue: str, flood: Flood | None) -> None:
        """Take note that ``queue`` is stopped by ``flood``, or by none any more."""

    def sources_held(self, queue: str, sources: int) -> None:
        """Take note of how many sources of ``queue`` are held back."""


class FloodGuard:
    """The state of one queue: which of its sources are held back, and whether it is consumed."""

    def __init__(self, queue: str, limit: FloodLimit, watch: Watch) -> None:
        self.flood: Flood | None = None
        self._queue = queue
        self._limit = limit
        self._watch = watch
        self._window = FloodWindow(limit)
        self._sources = Sources(limit) if queue in OUTSIDE_QUEUES else None
        self._consumed = asyncio.Event()
        self._consumed.set()

    @property
    def held(self) -> Mapping[str | None, Flood]:
        """The sources whose dead letters are held back, and why."""
        return {} if self._sources is None else self._sources.held

    def overrule(self, delivery: Delivery, decision: Decision) -> HandedBack | None:
        """Count a decision; return what is done in its place, if it is a dead letter of a flood.

        Two kinds count for nothing and pass while a source is held back. What was moved is looked
        for in the dead-letter queue by whoever moved it. What kills its reader is not read for its
        source, would as a copy kill as many again, and is no flood: each costs ten processes.
        """
        match decision:
            case DeadLetter() if self.flood is not None:
                return HandedBack()
            case DeadLetter(reason=Reason.CRASHED_CONSUMER) | Retry():
                pass
            case _ if delivery.moved:
                pass
            case Acknowledge(source):
                self._window.done()
                if self._sources is not None:
                    self._sources.done(source)
            case DeadLetter(reason=reason, subject=subject):
                return self._judge(Letter(reason, subject, self._source(delivery)))
        return None

    async def resumed(self) -> None:
        """Return once the queue may be consumed, at once if nothing stopped it."""
        await self._consumed.wait()

    def resume(self) -> None:
        """Have the queue consumed again, with nothing held against it or any source of it."""
        self.flood = None
        self._window = FloodWindow(self._limit)
        if self._sources is not None:
            self._sources.resume()
        self._consumed.set()
        self._watch.flooded(self._queue, None)
        self._watch.sources_held(self._queue, 0)

    def _source(self, delivery: Delivery) -> str | None:
        return None if self._sources is None else source_of(delivery.message.body)

    def _judge(self, letter: Letter) -> HandedBack | None:
        if self._sources is None:
            self._window.dead(letter)
            if flood := self._window.flood():
                self._stop(flood)
            return None
        source = self._sources.known_as(letter.source)
        if source in self.held:
            return HandedBack(TIERS[-1])
        self._window.dead(letter)
        of_source = self._sources.dead(letter)
        flood = self._window.flood()
        if flood is not None and self._sources.most_flood(self._window.letters):
            self._stop(flood)
        elif of_source is not None:
            self._sources.held[source] = of_source
            self._hold(source, of_source)
        return None

    def _stop(self, flood: Flood) -> None:
        self.flood = flood
        self._consumed.clear()
        self._watch.flooded(self._queue, flood)
        log.error(
            "consumption_stopped",
            queue=self._queue,
            dead=flood.dead,
            window=flood.window,
            share=round(flood.dead / flood.window, 2),
            reason=flood.reason.value,
            resume=HOW_TO_RESUME,
        )

    def _hold(self, source: str | None, flood: Flood) -> None:
        self._watch.sources_held(self._queue, len(self.held))
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
    """The guards of a service's queues; ``watch`` shows the state of each."""

    def __init__(self, limit: FloodLimit, watch: Watch) -> None:
        self._limit = limit
        self._watch = watch
        self._guards: dict[str, FloodGuard] = {}

    def of(self, queue: str) -> FloodGuard:
        """Return the breaker of ``queue``: the same one each time."""
        if queue not in self._guards:
            self._guards[queue] = FloodGuard(queue, self._limit, self._watch)
        return self._guards[queue]

    def resume(self) -> None:
        """Have every queue consumed again, and every source pass."""
        stopped = {name for name, each in self._guards.items() if each.flood is not None}
        held = {name for name, each in self._guards.items() if each.held}
        log.info("resume_asked_for", stopped=sorted(stopped), held_back=sorted(held))
        for name in stopped | held:
            self._guards[name].resume()

    async def remark(self) -> str | None:
        """Say which queues are not consumed, which sources are held back, and why."""
        remarks = [
            f"{name} is stopped: {each.flood}"
            for name, each in self._guards.items()
            if each.flood is not None
        ]
        remarks += [
            f"{name} holds back dead letters of {_listed(each.held)}"
            for name, each in self._guards.items()
            if each.held
        ]
        return "; ".join(remarks) or None


def name_of(source: str | None) -> str:
    """Return the name of a source for a person: by contract it has at most 200 characters."""
    return UNKNOWN if source is None else printable(source)


def _listed(held: Mapping[str | None, Flood]) -> str:
    named = [f"{name_of(source)} ({flood})" for source, flood in list(held.items())[:MOST_NAMED]]
    more = len(held) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
