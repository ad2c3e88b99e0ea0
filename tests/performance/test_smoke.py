"""The benchmarks of the whole chain run to their end, here with little to do."""

import asyncio
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


async def benchmark(name: str, *arguments: str) -> list[list[str]]:
    """Run a benchmark, which must succeed; return the rows of its table."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, f"benchmarks/{name}", *arguments),
        cwd=ROOT,
        env={"PYTHONPATH": "tests"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    lines = [line for line in output.decode().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


async def test_chain_counts_every_event_to_the_money() -> None:
    """With two processes of usage-ingest; the benchmark itself compares the sums."""
    chains = ("record", "relay", "money", "reports")

    rows = await benchmark("chain.py", *chains, "--processes", "2", "--count", "1000")

    assert [row[0] for row in rows] == list(chains)
    assert {row[-1] for row in rows} == {"0"}, "deadlocks"
    assert rows[-1][5] == "1,000", "a report for each run"


async def test_latency_is_told_for_each_station() -> None:
    """The bare consumer, the commit, the reporter's queue, Stripe."""
    rates = ("--rates", "50", "--counted-rate", "50")
    rows = await benchmark(
        "latency.py", *rates, "--seconds", "1", "--turns", "1", "--single-runs", "3"
    )

    stations = ["committed", "in the reporter's queue", "counted"]
    assert [row[1] for row in rows] == ["acked by a bare consumer", "committed", *stations * 2]
    assert all(float(row[2]) > 0 for row in rows)


async def test_time_shares_add_up() -> None:
    """Each part has a share, and there are several parts."""
    rows = await benchmark("time_shares.py", "--count", "4000")

    assert {"validation", "SQL", "reading frames"} <= {row[0] for row in rows}
    assert sum(int(row[1].rstrip("%")) for row in rows) == pytest.approx(100, abs=len(rows))


async def test_start_of_each_command_and_service_is_measured() -> None:
    """Services have a memory, too."""
    rows = await benchmark("starting.py", "--rounds", "1")

    assert all(float(row[1]) > 0 for row in rows)
    assert sum(bool(row[3]) for row in rows) == 3
