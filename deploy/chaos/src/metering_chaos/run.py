"""A run: load and faults on the stack, then settling, then the check."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from metering_chaos.active_reporter import watch_active_reporter
from metering_chaos.checking import check, dead_letters_to_move
from metering_chaos.environment import Environment, Say, open_environment
from metering_chaos.evidence import Evidence
from metering_chaos.faults import FaultInjector
from metering_chaos.findings import Verdict
from metering_chaos.gathering import UNREADABLE, gather_evidence
from metering_chaos.later_word import leave_uncounted, pass_a_day
from metering_chaos.load import make_load, make_organisations
from metering_chaos.organisations import found_organisations
from metering_chaos.plan import Kind, make_plan
from metering_chaos.process_faults import price_model
from metering_chaos.publisher import LoadPublisher
from metering_chaos.totals import verify_totals

LOAD_SHARE: Final = 0.58
"""The share of the minutes for load and faults; starting and settling have the rest."""

SETTLE_SHARE: Final = 0.32
MIN_SETTLE_SECONDS: Final = 75.0
POLL_SECONDS: Final = 2.0
PROGRESS_SECONDS: Final = 10.0
MAX_PATIENCE: Final = 3.0
"""How many times its patience a run may settle, on a slow machine, as long as it makes progress."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a run; ``minutes`` bound it from start to end.

    With ``uncounted``, the share of what Stripe accepts and does not count, the run has a day of
    Stripe's after its end, and Stripe's sums are checked, which takes some minutes more.
    """

    events: int
    faults: int
    seed: int
    minutes: float
    uncounted: float | None = None

    @property
    def load_seconds(self) -> float:
        """How long load and faults last."""
        return self.minutes * 60 * LOAD_SHARE

    @property
    def settle_seconds(self) -> float:
        """How long settling may take without progress."""
        return max(MIN_SETTLE_SECONDS, self.minutes * 60 * SETTLE_SHARE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        verdict: What the check found.
        events: How many messages were confirmed, each id and content once.
        faults: How many faults were carried out, by kind.
        unexpected: What no fault explains, and faults that could not be carried out.
        observed: Counts of effects that show that a fault took effect.
        to_move: Dead letters that a person has to move back.
    """

    verdict: Verdict
    events: int
    faults: Counter[Kind]
    unexpected: Sequence[str]
    observed: Counter[str]
    to_move: Sequence[str]


async def run_chaos(parameters: Parameters, directory: Path, say: Say) -> Outcome:
    """Run the stack under load and faults, let it settle, and check.

    Raises:
        LocalStackError: the stack could not be started.
    """
    seed, seconds = parameters.seed, parameters.load_seconds
    async with open_environment(directory, say, processes=2) as environment:
        await found_organisations(environment, make_organisations(seed))
        if parameters.uncounted is not None:
            await leave_uncounted(environment, parameters.uncounted)
        load = make_load(seed, parameters.events, seconds, datetime.now(UTC))
        publisher = LoadPublisher(environment.stack.amqp_url("publisher"), load)
        injector = FaultInjector(environment, publisher)
        plan = make_plan(seed, parameters.faults, seconds, environment.queues)
        passed_before = environment.passed_bytes()
        publishing = asyncio.create_task(publisher.run())
        async with _cancelled_at_end(
            publishing,
            asyncio.create_task(_say_progress(publisher, say)),
            asyncio.create_task(watch_active_reporter(environment)),
        ):
            await injector.run(plan)
            await environment.lift_faults()
            if not injector.completed[Kind.PRICE_MODEL]:
                await price_model(environment)
            say("all faults are lifted")
            patience = parameters.settle_seconds
            evidence, verdict = await settle(environment, publisher, publishing, patience)
            if parameters.uncounted is not None:
                await pass_a_day(environment)
                evidence, verdict = await settle(
                    environment, publisher, publishing, patience, later=True
                )
                _observe_later_word(environment, evidence)
            await verify_totals(environment)
        passed = environment.passed_bytes() - passed_before
        unused = [route for route in passed_before if not passed[route]]
        environment.observed["readings later than their runs"] = len(evidence.late_readings)
        return Outcome(
            verdict=verdict,
            events=len(set(evidence.confirmed)),
            faults=injector.completed,
            unexpected=(
                *environment.unexpected,
                *injector.failed,
                *(
                    f"nothing passed the proxy of {each}: its faults had no effect"
                    for each in unused
                ),
            ),
            observed=environment.observed,
            to_move=dead_letters_to_move(evidence),
        )


@asynccontextmanager
async def _cancelled_at_end(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Patience:
    """Ends after ``seconds`` without progress, and in any case after three times that."""

    def __init__(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._end = self._clock() + seconds * MAX_PATIENCE
        self._least: int | None = None
        self.deadline = self._clock() + seconds

    def over(self, still_open: int) -> bool:
        """Return whether to give up; fewer open messages than ever before are progress."""
        if self._least is None or still_open < self._least:
            self._least = still_open
            self.deadline = min(self._clock() + self._seconds, self._end)
        return self._clock() > self.deadline


async def settle(
    environment: Environment,
    publisher: LoadPublisher,
    publishing: asyncio.Task[None],
    patience: float,
    *,
    later: bool = False,
) -> tuple[Evidence, Verdict]:
    """Check until nothing is open twice in a row, or there is no progress for ``patience`` seconds.

    ``later``: Stripe's later word is checked as well.

    Raises:
        TimeoutError: the evidence could not be read within ``patience`` seconds.
    """
    waiting, clean_before = _Patience(patience), False
    while True:
        if publishing.done():
            publishing.result()
        evidence = await _gather(environment, publisher, waiting.deadline, later=later)
        verdict = check(evidence)
        clean = verdict.clean and publishing.done()
        if (clean and clean_before) or waiting.over(verdict.open):
            return evidence, verdict
        environment.say(f"settling: unconfirmed={len(publisher.unconfirmed)} {verdict}")
        clean_before = clean
        await asyncio.sleep(POLL_SECONDS)


async def _gather(
    environment: Environment, publisher: LoadPublisher, deadline: float, *, later: bool
) -> Evidence:
    """Gather the evidence; a server that has just been restarted is waited for."""
    while True:
        try:
            return await gather_evidence(environment, publisher, later=later)
        except UNREADABLE as error:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError("the evidence cannot be read") from error
            environment.say(f"settling: the evidence cannot be read yet ({type(error).__name__})")
            await asyncio.sleep(POLL_SECONDS)


def _observe_later_word(environment: Environment, evidence: Evidence) -> None:
    uncounted = [each for each in evidence.meter_events if not each.counted]
    states = Counter(each.state for each in evidence.reports)
    environment.observed["reports that Stripe did not count"] = len(uncounted)
    environment.observed["reports rejected later"] = states["rejected_later"]
    if evidence.later is not None:
        kinds = Counter(each.kind for each in evidence.later.differences)
        for kind, count in kinds.items():
            environment.observed[f"hours with a difference ({kind})"] = count


async def _say_progress(publisher: LoadPublisher, say: Say) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        say(f"confirmed {len(publisher.confirmed)}, unconfirmed {len(publisher.unconfirmed)}")
