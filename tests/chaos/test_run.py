"""A small run of chaos with a fixed seed: every kind of fault, and everything accounted for."""

from pathlib import Path

import pytest

from metering_chaos.plan import Kind
from metering_chaos.run import Parameters, run_chaos

OBSERVED = (
    "sessions ended",
    "read-only sessions",
    "messages sent to a tier without its policy",
    "connections without an answer",
)
"""Effects that show on any machine that a fault took effect."""


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_every_kind_of_fault_leaves_everything_accounted_for(tmp_path: Path) -> None:
    """Four thousand runs, one fault of each kind and some more, and each run paid for once."""
    parameters = Parameters(events=4000, faults=len(Kind) + 9, seed=11, minutes=2)

    outcome = await run_chaos(parameters, tmp_path / "chaos", print)

    assert outcome.verdict.findings == ()
    assert outcome.events >= parameters.events
    assert outcome.faults.keys() == set(Kind), outcome.unexpected
    for effect in OBSERVED:
        assert outcome.observed[effect] > 0, effect
