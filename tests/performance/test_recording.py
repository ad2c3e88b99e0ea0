"""The comparison of ways of recording runs, here with a small part of its events."""

import asyncio
import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ways import WAYS

ROOT = Path(__file__).parents[2]
TOO_FEW = "too few events to measure"
"""The one reason without a fault: all were recorded before the first count."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


async def test_every_way_records_its_backlog(tmp_path: Path) -> None:
    """Each has a figure and is in table and plot; the peers' packages may be missing here."""
    arguments = ("--share", "0.1", "--rounds", "1", "--minutes", "8", "--to", tmp_path)

    environment = os.environ | {"PYTHONPATH": "tests"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "benchmarks/recording.py", *arguments, cwd=ROOT, env=environment
    )
    assert await process.wait() == 0

    written = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    missing = {
        name: reasons
        for name, reasons in written["no_figure"].items()
        if WAYS[name].installed and reasons != [TOO_FEW]
    }
    assert missing == {}
    assert written["ratio_to_naive"].keys() == {"one_process", "two_processes"}
    assert min(written["events_per_second"].values()) > 0
    table = (tmp_path / "latest.md").read_text(encoding="utf-8")
    plot = ET.parse(tmp_path / "latest.svg")  # noqa: S314 - our own file
    for name in written["events_per_second"]:
        assert WAYS[name].title in table
        assert WAYS[name].title in "".join(plot.getroot().itertext())
