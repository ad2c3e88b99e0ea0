"""A run from its first message to the verdict."""

import asyncio
from collections import Counter
from collections.abc import Sequence
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
        telling = asyncio.create_task(_tell(publisher, say))
        watching = asyncio.create_task(watch_shifts(arena))
        try:
            await havoc.run(plan)
            await arena.lift()
            say("all faults are lifted")
            evidence, verdict = await settle(arena, publisher, publishing, parameters.drain_seconds)
        finally:
            for task in (publishing, telling, watching):
                task.cancel()
            await asyncio.gather(publishing, telling, watching, return_exceptions=True)
        notes = (*arena.notes, *havoc.failed)
        events = len(set(evidence.confirmed))
        return Outcome(verdict, events, havoc.done, notes, arena.seen, innocent(evidence))


async def settle(
    arena: Arena, publisher: LoadPublisher, publishing: asyncio.Task[None], patience: float
) -> tuple[Evidence, Verdict]:
    """Judge again and again until nothing is open; then once more, should anything still move.

    Raises:
        TimeoutError: the evidence could not be read within ``patience`` seconds.
    """
    deadline = asyncio.get_running_loop().time() + patience
    clean_before = False
    while True:
        if publishing.done():
            publishing.result()
        evidence = await _read(arena, publisher, deadline)
        verdict = check(evidence)
        clean = verdict.clean and publishing.done()
        if (clean and clean_before) or asyncio.get_running_loop().time() > deadline:
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
