"""Commands end quietly when their output is closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDLESS = """
import asyncio, sys
from local_stack.output import exit_code_of

async def write() -> None:
    while True:
        print("a line", flush=True)

async def several() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(write())

def work() -> int:
    try:
        asyncio.run(several())
    finally:
        sys.stderr.write("cleaned up")
    return 0

sys.exit(exit_code_of(work))
"""


@pytest.mark.parametrize(
    ("command", "errors"),
    [
        (["-c", ENDLESS], "cleaned up"),
        (["-m", "local_stack", "--directory", "DIRECTORY", "status"], ""),
    ],
    ids=["in a task", "local-stack"],
)
def test_a_command_whose_output_is_closed_cleans_up_and_ends_quietly(
    command: list[str], errors: str, tmp_path: Path
) -> None:
    """As with `… | head`: the exit code that shells report for SIGPIPE, and no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, *(each.replace("DIRECTORY", str(tmp_path)) for each in command)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (141, errors)
