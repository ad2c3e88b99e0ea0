"""How every program ends whose output is not read, not wanted, or finds no room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "usage_ingest": ["--help"],
    "stripe_reporter": ["--help"],
    "customer_provisioner": ["--help"],
    "nexus_broker_admin.cli": ["render"],
}
LOUD = """
import sys
from nexus_service.program import ended

def work() -> int:
    for number in range(100_000):
        print(number)
    return 0

sys.exit(ended(work))
"""
LOST = """
import sys
from nexus_service.program import ended

def work() -> int:
    raise BrokenPipeError("a connection was lost")

sys.exit(ended(work))
"""
SERVING = """
import asyncio, sys
import structlog
from nexus_service.lifecycle import run_until, stop_on_signal
from nexus_service.logs import configure
from nexus_service.program import ended

async def tell() -> None:
    while True:
        structlog.get_logger().info("told")
        await asyncio.sleep(0)

async def serve() -> None:
    configure(service="s", level="INFO", form="json")
    stop = asyncio.Event()
    stop_on_signal(stop)
    await run_until(stop, {"tell": tell}, [], grace=1)

def work() -> int:
    asyncio.run(serve())
    return 0

sys.exit(ended(work))
"""


def unread(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_whose_output_is_not_read_ends_quietly(program: str) -> None:
    """As `… | head` makes it: no traceback, and the exit code that shells give SIGPIPE, if any."""
    ended = unread("-m", program, *PROGRAMS[program])

    assert ended.stderr == ""
    assert ended.returncode in {0, 141}


@pytest.mark.parametrize(("program", "code"), [(LOUD, 141), (SERVING, 0)], ids=["command", "serve"])
def test_a_program_ends_quietly_when_nobody_reads_on(program: str, code: int) -> None:
    """In the middle of its work; a service drains first, as after SIGTERM."""
    ended = unread("-c", program)

    assert (ended.returncode, ended.stderr) == (code, "")


def test_a_lost_connection_is_no_unread_output() -> None:
    """The operating system has one error for both; a fault must not end in silence."""
    ended = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert "a connection was lost" in ended.stderr


def test_output_that_finds_no_room_is_told() -> None:
    """Exit code 1, in a line: a cut list must not pass for a whole one."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "nexus_broker_admin.cli", "render"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr == "not everything could be written: No space left on device\n"


@pytest.mark.parametrize(
    "setting", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_a_character_that_a_terminal_lacks_is_escaped(setting: dict[str, str]) -> None:
    """The help of a command has a `…`, and a locale need not be UTF-8."""
    ended = subprocess.run(
        [sys.executable, "-m", "usage_ingest", "check", "--help"],
        env={**os.environ, **setting},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0
    assert b"\\u2026" in ended.stdout


def test_a_program_without_an_output_ends_as_with_one() -> None:
    """A shell's `>&-` closes it."""
    command = f'"{sys.executable}" -m nexus_broker_admin.cli render >&- 2>&-'

    assert subprocess.run(["sh", "-c", command], timeout=60, check=False).returncode == 0  # noqa: S607 - any shell
