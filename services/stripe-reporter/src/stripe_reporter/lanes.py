"""One call at a time for each customer and meter, and room for everybody else meanwhile.

Stripe takes no two concurrent meter events for one customer and meter
(https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

LONGEST_QUEUE: Final = 25
"""Reports of one lane in hand, the one being sent included: few enough that a single customer
never fills the prefetch."""

SOON: Final = 200
"""Reports of one lane that may come again soon: several times what is sent until then, so that the
lane never runs dry. All further ones come later, or a backlog would be a loop that is ever busy
with turning it away."""

SOON_SECONDS: Final = 5.0
"""The wait of the shortest retry tier."""


class LaneFullError(Exception):
    """Too many reports of this lane are in hand; this one has to come again, ``soon`` or later."""

    def __init__(self, *, soon: bool) -> None:
        super().__init__("too many reports of one customer and meter are waiting")
        self.soon = soon


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: int = 0
    turned_away: int = 0
    since: float = 0.0

    def turn_away(self, now: float) -> LaneFullError:
        if now - self.since >= SOON_SECONDS:
            self.since, self.turned_away = now, 0
        self.turned_away += 1
        return LaneFullError(soon=self.turned_away <= SOON)


class Lanes:
    """The lanes that have somebody in them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lanes: dict[Hashable, _Lane] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lane of ``key``, after those who came before.

        Raises:
            LaneFullError: too many came before.
        """
        lane = self._lanes.setdefault(key, _Lane())
        if lane.inside >= LONGEST_QUEUE:
            raise lane.turn_away(self._clock())
        lane.inside += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[key]
