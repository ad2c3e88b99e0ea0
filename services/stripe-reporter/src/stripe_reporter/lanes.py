"""One call at a time for each customer and meter, and room for everybody else meanwhile.

Stripe takes no two concurrent meter events for one customer and meter
(https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

LONGEST_QUEUE: Final = 25
"""Reports of one lane in hand, the one being sent included. At Stripe's usual pace they are done
before an excess one returns from the shortest retry tier, and a single customer never fills the
prefetch."""


class LaneFullError(Exception):
    """Too many reports of this lane are in hand; this one has to come again."""


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: int = 0


class Lanes:
    """The lanes that have somebody in them."""

    def __init__(self, longest: int = LONGEST_QUEUE) -> None:
        self._longest = longest
        self._lanes: dict[Hashable, _Lane] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lane of ``key``, after those who came before.

        Raises:
            LaneFullError: too many came before.
        """
        lane = self._lanes.setdefault(key, _Lane())
        if lane.inside >= self._longest:
            raise LaneFullError
        lane.inside += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[key]
