"""A small run of chaos with a fixed seed: every kind of fault, and everything accounted for."""

from pathlib import Path

import pytest

from metering_chaos.course import Parameters, run_chaos
from metering_chaos.plan import Kind

SEEN = (
    "sessions ended",
    "sessions that could only read",
    "messages that met a displaced policy",
    "handshakes without an answer",
)
"""What shows that a fault was one, whatever the machine is busy with."""


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_every_kind_of_fault_leaves_everything_accounted_for(tmp_path: Path) -> None:
    """Four thousand runs, one fault of each kind and some more, and each run paid for once."""
    parameters = Parameters(events=4000, faults=len(Kind) + 9, seed=11, minutes=2)

    outcome = await run_chaos(parameters, tmp_path / "chaos", print)

    assert outcome.verdict.findings == ()
    assert outcome.events >= parameters.events
    assert outcome.faults.keys() == set(Kind), outcome.notes
    for seen in SEEN:
        assert outcome.seen[seen] > 0, seen
