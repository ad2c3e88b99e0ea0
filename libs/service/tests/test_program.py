"""Exit of programs whose output is closed, missing or on a full disk."""

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
PRINTING = """
import sys
from nexus_service.program import run_program

def work() -> int:
    for number in range(100_000):
        print(number)
    return 0

sys.exit(run_program(work))
"""
LOST_CONNECTION = """
import sys
from nexus_service.program import run_program

def work() -> int:
    raise BrokenPipeError("a connection was lost")

sys.exit(run_program(work))
"""
SERVING = """
import asyncio, sys
import structlog
from nexus_service.lifecycle import run_until, stop_on_signal
from nexus_service.logs import configure
from nexus_service.program import run_program

async def log_lines() -> None:
    while True:
        structlog.get_logger().info("logged")
        await asyncio.sleep(0)

async def serve() -> None:
    configure(service="s", level="INFO", form="json")
    stop = asyncio.Event()
    stop_on_signal(stop)
    await run_until(stop, {"log": log_lines}, [], grace=1)

def work() -> int:
    asyncio.run(serve())
    return 0

sys.exit(run_program(work))
"""


def run_with_closed_output(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program with closed output."""
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
def test_program_with_closed_output_exits_silently(program: str) -> None:
    """As with `… | head`: no traceback; the exit code is 0 or that of SIGPIPE."""
    finished = run_with_closed_output("-m", program, *PROGRAMS[program])

    assert finished.stderr == ""
    assert finished.returncode in {0, 141}


@pytest.mark.parametrize(
    ("program", "code"), [(PRINTING, 141), (SERVING, 0)], ids=["command", "serve"]
)
def test_program_exits_silently_when_output_is_closed_later(program: str, code: int) -> None:
    """During its work; a service drains first, as after SIGTERM."""
    finished = run_with_closed_output("-c", program)

    assert (finished.returncode, finished.stderr) == (code, "")


def test_lost_connection_is_not_closed_output() -> None:
    """Both raise the same error; a lost connection must be reported."""
    finished = subprocess.run(
        [sys.executable, "-c", LOST_CONNECTION],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 1
    assert "a connection was lost" in finished.stderr


def test_full_disk_is_reported() -> None:
    """Exit code 1 and one line of error: the output is incomplete."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "nexus_broker_admin.cli", "render"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert finished.returncode == 1
    assert finished.stderr == "not everything could be written: No space left on device\n"


@pytest.mark.parametrize(
    "setting", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_character_not_in_encoding_is_escaped(setting: dict[str, str]) -> None:
    """The help text contains `…`; the locale may not be UTF-8."""
    finished = subprocess.run(
        [sys.executable, "-m", "usage_ingest", "check", "--help"],
        env={**os.environ, **setting},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0
    assert b"\\u2026" in finished.stdout


def test_program_without_output_succeeds() -> None:
    """The shell's `>&-` closes it."""
    command = f'"{sys.executable}" -m nexus_broker_admin.cli render >&- 2>&-'

    assert subprocess.run(["sh", "-c", command], timeout=60, check=False).returncode == 0  # noqa: S607 - any shell
