"""What the benchmarks share: servers that wait for their disk, processor time by part, tables."""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from local_stack.catalogue import base_environment
from local_stack.errors import LocalStackError
from local_stack.postgres import PostgresServer
from local_stack.processes import exit_on_sigterm
from local_stack.rabbitmq import RabbitNode
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE
from support.backlog import pile_up, runs
from support.processor_time import processor_seconds
from support.vhost import Vhost

USERS: Final = 100
GRACE_SECONDS: Final = 10.0
"""How long a process may take to end after SIGTERM."""

UNAVAILABLE: Final = 2
"""The exit code where a server can't run here."""


@dataclass(frozen=True, slots=True)
class Servers:
    """A broker and a PostgreSQL server of this machine, both of which wait for their disk.

    What the benchmark keeps for itself, such as logs, goes into ``directory``.
    """

    directory: Path
    broker: RabbitNode
    postgres: PostgresServer

    @property
    def parts(self) -> dict[str, Sequence[int]]:
        """The process ids of each, by the name of their part."""
        return {
            "broker": [*self.broker.pids.values()],
            "postgres": [*self.postgres.pids.values()],
        }


@contextmanager
def durable_servers() -> Iterator[Servers]:
    """Start both servers in a temporary folder; stop them and delete it at the end.

    Raises:
        LocalStackError: If one of them can't run here; the text says what to install.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        RabbitNode.start(Path(name) / "rabbitmq") as broker,
        PostgresServer.start(Path(name) / "postgres") as postgres,
    ):
        yield Servers(Path(name), broker, postgres)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was done by a time, and the processor seconds of each part until then."""

    number: int
    time: float
    processor: Mapping[str, float]

    @classmethod
    def now(cls, number: int, parts: Mapping[str, Sequence[int]]) -> "Moment":
        """Take the time, and the processor time of each part's processes and their children."""
        processor = {part: processor_seconds(*roots) for part, roots in parts.items()}
        return cls(number, time.monotonic(), processor)


@dataclass(frozen=True, slots=True)
class Cost:
    """Events per second, and microseconds of processor time for an event, by part."""

    rate: float
    micros: Mapping[str, float]

    @classmethod
    def between(cls, early: Moment, late: Moment) -> "Cost":
        """Return the cost of what was done between two moments."""
        number = late.number - early.number
        spent = {part: late.processor[part] - early.processor[part] for part in late.processor}
        micros = {part: seconds / number * 1e6 for part, seconds in spent.items()}
        return cls(number / (late.time - early.time), micros)

    @classmethod
    def median(cls, costs: Sequence["Cost"]) -> "Cost":
        """Return the medians of several rounds, each figure by itself."""
        return cls(
            statistics.median(cost.rate for cost in costs),
            {part: statistics.median(c.micros[part] for c in costs) for part in costs[0].micros},
        )


async def pile_up_runs(vhost: Vhost, count: int) -> None:
    """Queue ``count`` tool runs of a kilobyte for usage-ingest, of a hundred users."""
    examples = runs([uuid4() for _ in range(USERS)])
    await pile_up(vhost, examples, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)


@dataclass(frozen=True, slots=True)
class Program:
    """A command, and the settings in its environment."""

    command: Sequence[str | Path]
    settings: Mapping[str, str]


@asynccontextmanager
async def running(*programs: Program, log: Path) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Run programs while the context lasts; those that do not end after SIGTERM are killed.

    What they print is added to the file ``log``.
    """
    started: list[asyncio.subprocess.Process] = []
    try:
        for program in programs:
            environment = {**base_environment(), **program.settings}
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *program.command, env=environment, stdout=output, stderr=output
                )
            started.append(process)
        yield started
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in started:
            try:
                await asyncio.wait_for(process.wait(), GRACE_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


def load_average() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 1)


def circumstances(servers: Servers, *packages: str) -> dict[str, Any]:
    """Return what figures depend on: date, cores and versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "rabbitmq": servers.broker.version,
            "postgresql": servers.postgres.version,
            **{package: version(package) for package in packages},
        },
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def say(line: str) -> None:
    """Show the progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def run(benchmark: Coroutine[Any, Any, None]) -> None:
    """Run a benchmark; where a server can't run here, say why and exit with code 2.

    SIGTERM stops the servers, too.
    """
    try:
        with exit_on_sigterm():
            asyncio.run(benchmark)
    except LocalStackError as error:
        say(f"The benchmark needs a RabbitMQ and a PostgreSQL of its own: {error}")
        sys.exit(UNAVAILABLE)
