"""Stopping the consumption of a queue that is flooded, until a person resumes it.

Everything else of the service goes on. What was decided to be dead-lettered once the flood is known
is handed back instead, so the dead-letter queue gets no more than the window holds.
"""

import asyncio
from collections.abc import Callable

import structlog

from nexus_messaging.flood import Flood, FloodLimit, FloodWindow
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Acknowledge, DeadLetter, Decision, Retry

log = structlog.get_logger()


class Breaker:
    """The state of one queue: consumed, or stopped by a flood."""

    def __init__(
        self, queue: str, limit: FloodLimit, changed: Callable[[str, Flood | None], None]
    ) -> None:
        self.flood: Flood | None = None
        self._queue = queue
        self._limit = limit
        self._changed = changed
        self._window = FloodWindow(limit)
        self._consumed = asyncio.Event()
        self._consumed.set()

    def passes(self, delivery: Delivery, decision: Decision) -> bool:
        """Count a decision and return whether to carry it out: not a dead letter of a flood."""
        match decision:
            case Acknowledge():
                self._window = self._window.done()
            case DeadLetter() if self.flood is not None:
                return False
            case DeadLetter(reason=reason, subject=subject) if not delivery.moved:
                self._window = self._window.dead(reason, subject)
                self._stop_if(self._window.flood())
            case DeadLetter() | Retry():
                pass
        return True

    async def resumed(self) -> None:
        """Return once the queue may be consumed, at once if nothing stopped it."""
        await self._consumed.wait()

    def resume(self) -> None:
        """Have the queue consumed again, with nothing held against it."""
        self.flood = None
        self._window = FloodWindow(self._limit)
        self._consumed.set()
        self._changed(self._queue, None)

    def _stop_if(self, flood: Flood | None) -> None:
        if flood is None:
            return
        self.flood = flood
        self._consumed.clear()
        self._changed(self._queue, flood)
        log.error(
            "consumption_stopped",
            queue=self._queue,
            dead=flood.dead,
            window=flood.window,
            share=round(flood.dead / flood.window, 2),
            reason=flood.reason.value,
            resume="SIGUSR1 or a restart",
        )


class Breakers:
    """The breakers of a service's queues.

    ``changed`` is told whenever a queue is stopped, and by what, or goes on.
    """

    def __init__(self, limit: FloodLimit, changed: Callable[[str, Flood | None], None]) -> None:
        self._limit = limit
        self._changed = changed
        self._breakers: dict[str, Breaker] = {}

    def of(self, queue: str) -> Breaker:
        """Return the breaker of ``queue``: the same one each time."""
        if queue not in self._breakers:
            self._breakers[queue] = Breaker(queue, self._limit, self._changed)
        return self._breakers[queue]

    def resume(self) -> None:
        """Have every queue consumed again."""
        stopped = {name: each for name, each in self._breakers.items() if each.flood is not None}
        log.info("resume_asked_for", stopped=sorted(stopped))
        for breaker in stopped.values():
            breaker.resume()

    async def remark(self) -> str | None:
        """Say which queues are not consumed, and why."""
        stopped = [
            f"{name} is stopped: {each.flood}"
            for name, each in self._breakers.items()
            if each.flood is not None
        ]
        return "; ".join(stopped) or None
