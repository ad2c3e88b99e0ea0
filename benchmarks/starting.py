"""How long a command and the start of each service take, and what an idle process needs.

Commands are measured by `wait4` of their process, services from their launch until `/readyz`
answers 200, with broker and database up and migrated. The memory is resident, some seconds later.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import durable_servers, load_average, run, say, table
from local_stack.catalogue import SERVICES, base_environment
from support.memory import resident_mib
from support.platform import Platform, standalone_platform
from support.processor_time import processor_seconds

COMMANDS: Final = (
    ("usage_ingest", "--help"),
    ("usage_ingest", "status"),
    ("usage_ingest", "check"),
    ("stripe_reporter", "--help"),
    ("customer_provisioner", "--help"),
    ("nexus_outbox", "--help"),
)
IDLE_SECONDS: Final = 3.0
PROBE_SECONDS: Final = 0.02
"""Seconds between two requests of `/readyz`: each takes some of the time that is measured."""


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds by the clock and of processor time, and MiB of memory; 0 for a command."""

    wall: float
    processor: float
    resident: int = 0


def command_start(module: str, name: str, settings: Mapping[str, str]) -> Start:
    """Run a command to its end, whatever it exits with."""
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - this project's own
        [sys.executable, "-m", module, name],
        env={**base_environment(), **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return Start(wall, used.ru_utime + used.ru_stime)


def service_start(platform: Platform, name: str) -> Start:
    """Start a service again and wait until it is ready, then until it is idle."""
    service = platform.services[name]
    service.stop()
    began = time.perf_counter()
    service.launch()
    while not service.ready:
        service.check()
        time.sleep(PROBE_SECONDS)
    wall = time.perf_counter() - began
    assert service.pid is not None
    processor = processor_seconds(service.pid)
    time.sleep(IDLE_SECONDS)
    return Start(wall, processor, resident_mib(service))


def row(name: str, starts: Sequence[Start]) -> list[str]:
    """Return the medians as a row of the table."""
    wall = statistics.median(each.wall for each in starts)
    processor = statistics.median(each.processor for each in starts)
    resident = statistics.median(each.resident for each in starts)
    return [name, f"{wall:.2f}", f"{processor:.2f}", f"{resident:.0f}" if resident else ""]


async def main(rounds: int) -> None:
    """Measure every command and service in turns, and print the medians."""
    found: dict[str, list[Start]] = {}
    with durable_servers() as servers, tempfile.TemporaryDirectory() as name:
        platform_of = standalone_platform(servers.broker, servers.postgres, Path(name), {})
        async with platform_of as platform:
            platform.start()
            for turn in range(rounds):
                for module, argument in COMMANDS:
                    settings = platform.settings_of(module) if module != "nexus_outbox" else {}
                    start = command_start(module, argument, settings)
                    found.setdefault(f"`{module} {argument}`", []).append(start)
                for plan in SERVICES:
                    start = service_start(platform, plan.name)
                    found.setdefault(f"{plan.name} to ready", []).append(start)
                say(f"round {turn + 1} of {rounds}")
    print(f"starting: median of {rounds}, load average {load_average()}\n")
    header = ["", "seconds", "processor seconds", "idle MiB"]
    print(table(header, [row(name, starts) for name, starts in found.items()]), end="")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    run(main(options.parse_args().rounds))
