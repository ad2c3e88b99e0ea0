"""A run from its first message to the verdict."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from metering_chaos.arena import Arena, Say, open_arena
from metering_chaos.checking import Verdict, check, innocent
from metering_chaos.evidence import Evidence
from metering_chaos.faults import Havoc
from metering_chaos.load import make_load
from metering_chaos.plan import Kind, make_plan
from metering_chaos.publisher import LoadPublisher
from metering_chaos.shifts import watch_shifts
from metering_chaos.witnesses import UNREADABLE, gather_evidence

LOAD_SHARE: Final = 0.58
"""Of the minutes, what load and faults take; starting and draining have the rest."""
DRAIN_SHARE: Final = 0.32
DRAIN_AT_LEAST: Final = 75.0
SETTLED_EVERY: Final = 2.0
MOST_PATIENCE: Final = 3.0
"""Times the patience, for a machine that is too slow, as long as less and less is open."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run is to be; ``minutes`` bound it from start to end."""

    events: int
    faults: int
    seed: int
    minutes: float

    @property
    def load_seconds(self) -> float:
        """How long there is load and trouble."""
        return self.minutes * 60 * LOAD_SHARE

    @property
    def drain_seconds(self) -> float:
        """How long everything may take to settle after that."""
        return max(DRAIN_AT_LEAST, self.minutes * 60 * DRAIN_SHARE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    verdict: Verdict
    events: int
    faults: Counter[Kind]
    notes: Sequence[str]
    seen: Counter[str]
    innocent: Sequence[str]


async def run_chaos(parameters: Parameters, directory: Path, say: Say) -> Outcome:
    """Run the stack under load and faults, let it settle, and judge.

    Raises:
        LocalStackError: the stack could not be started.
    """
    async with open_arena(directory, say, processes=2) as arena:
        load = make_load(
            parameters.seed, parameters.events, parameters.load_seconds, datetime.now(UTC)
        )
        publisher = LoadPublisher(arena.stack.amqp_url("publisher"), load)
        havoc = Havoc(arena, publisher)
        plan = make_plan(parameters.seed, parameters.faults, parameters.load_seconds)
        publishing = asyncio.create_task(publisher.run())
        async with _ending(
            publishing,
            asyncio.create_task(_tell(publisher, say)),
            asyncio.create_task(watch_shifts(arena)),
        ):
            await havoc.run(plan)
            await arena.lift()
            say("all faults are lifted")
            evidence, verdict = await settle(arena, publisher, publishing, parameters.drain_seconds)
        events, notes = len(set(evidence.confirmed)), (*arena.notes, *havoc.failed)
        return Outcome(verdict, events, havoc.done, notes, arena.seen, innocent(evidence))


@asynccontextmanager
async def _ending(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    """End the tasks with the context."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Patience:
    """Is over when for so many ``seconds`` no less was open than before, or after thrice those."""

    def __init__(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._end = self._clock() + seconds * MOST_PATIENCE
        self._least: int | None = None
        self.deadline = self._clock() + seconds

    def over(self, still_open: int) -> bool:
        """Tell whether to give up on what is still open."""
        if self._least is None or still_open < self._least:
            self._least = still_open
            self.deadline = min(self._clock() + self._seconds, self._end)
        return self._clock() > self.deadline


async def settle(
    arena: Arena, publisher: LoadPublisher, publishing: asyncio.Task[None], patience: float
) -> tuple[Evidence, Verdict]:
    """Judge again and again until nothing is open; then once more, should anything still move.

    It gives up when for ``patience`` seconds no less was open than before.

    Raises:
        TimeoutError: the evidence could not be read within ``patience`` seconds.
    """
    waiting, clean_before = _Patience(patience), False
    while True:
        if publishing.done():
            publishing.result()
        evidence = await _read(arena, publisher, waiting.deadline)
        verdict = check(evidence)
        clean = verdict.clean and publishing.done()
        if (clean and clean_before) or waiting.over(verdict.open):
            return evidence, verdict
        arena.say(f"settling: unconfirmed={len(publisher.unconfirmed)} {verdict}")
        clean_before = clean
        await asyncio.sleep(SETTLED_EVERY)


async def _read(arena: Arena, publisher: LoadPublisher, deadline: float) -> Evidence:
    """Read the evidence; a server that has only just come back is given the time it needs."""
    while True:
        try:
            return await gather_evidence(arena, publisher)
        except UNREADABLE as error:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError("the evidence cannot be read") from error
            arena.say(f"settling: cannot look yet ({type(error).__name__})")
            await asyncio.sleep(SETTLED_EVERY)


async def _tell(publisher: LoadPublisher, say: Say) -> None:
    while True:
        await asyncio.sleep(10)
        say(f"confirmed {len(publisher.confirmed)}, not yet {len(publisher.unconfirmed)}")
