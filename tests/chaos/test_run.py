"""A small run of chaos with a fixed seed: every kind of fault, and every run counted once."""

from pathlib import Path

import pytest

from metering_chaos.plan import Kind
from metering_chaos.run import Parameters, run_chaos

EVIDENCE = (
    "sessions ended",
    "read-only sessions",
    "messages sent to a tier without its policy",
    "connections without an answer",
    "readings later than their runs",
)
"""Effects that prove a fault, whatever the load of the machine."""


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_run_with_every_kind_of_fault_has_no_findings(tmp_path: Path) -> None:
    """Four thousand tool runs, each kind of fault at least once, and each run billed once."""
    # This seed's plan displaces the policy while runs are still published.
    parameters = Parameters(events=4000, faults=len(Kind) + 9, seed=142, minutes=2)

    outcome = await run_chaos(parameters, tmp_path / "chaos", print)

    assert outcome.verdict.findings == ()
    assert outcome.events >= parameters.events
    assert outcome.faults.keys() == set(Kind), outcome.unexpected
    for effect in EVIDENCE:
        assert outcome.observed[effect] > 0, effect
