"""Commands end quietly when nobody reads their output on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPOKEN = """
import asyncio, sys
from local_stack.output import ended

async def tell() -> None:
    while True:
        print("told", flush=True)

async def several() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(tell())

def work() -> int:
    try:
        asyncio.run(several())
    finally:
        sys.stderr.write("cleaned up")
    return 0

sys.exit(ended(work))
"""


@pytest.mark.parametrize(
    ("command", "errors"),
    [
        (["-c", SPOKEN], "cleaned up"),
        (["-m", "local_stack", "--directory", "DIRECTORY", "status"], ""),
    ],
    ids=["in a task", "local-stack"],
)
def test_a_command_whose_output_is_not_read_cleans_up_and_ends_quietly(
    command: list[str], errors: str, tmp_path: Path
) -> None:
    """As `… | head` makes it: with the exit code that shells give SIGPIPE, and no traceback."""
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
