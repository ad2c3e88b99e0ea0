"""What a tool run costs from the queue to the ledger, compared with other ways of recording it.

Each way in turn, as one process, records the same backlog. It is measured from the first tenth of
the backlog to its end, so without start and connecting: runs per second, and the processor time per
run of the consumer, the broker and PostgreSQL. The servers wait for their disk, as in production.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg

from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from local_stack.postgres import PostgresServer
from local_stack.rabbitmq import RabbitNode
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE
from support.backlog import pile_up, runs
from support.databases import make_database
from support.processor_time import processor_seconds
from support.vhost import Vhost

SERVICE: Final = "usage_ingest"
OURS: Final = "usage-ingest"
WAYS: Final = ("one-by-one", "in-batches", OURS, "unread")
"""The consumers; all but ours are in ``peers.py``."""

USERS: Final = 100
POLL_SECONDS: Final = 0.05
TIMEOUT_SECONDS: Final = 300.0

BODIES: Final = f"CREATE TABLE bodies (body bytea); GRANT INSERT ON bodies TO {SERVICE}"
RECORDED: Final = "SELECT (SELECT count(*) FROM usage_events) + (SELECT count(*) FROM bodies)"
EMPTY: Final = "TRUNCATE usage_events, bodies"


@dataclass(frozen=True, slots=True)
class Moment:
    """The runs recorded by a time, and the processor seconds of each part until then."""

    recorded: int
    time: float
    processor: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """Runs per second, and microseconds of processor time per run, by part."""

    rate: float
    micros: Mapping[str, float]

    @classmethod
    def between(cls, early: Moment, late: Moment) -> "Cost":
        """Return the cost of the runs recorded between two moments."""
        number = late.recorded - early.recorded
        spent = {part: late.processor[part] - early.processor[part] for part in late.processor}
        micros = {part: seconds / number * 1e6 for part, seconds in spent.items()}
        return cls(number / (late.time - early.time), micros)


class Bench:
    """A broker and a ledger; the consumers are measured one after the other."""

    def __init__(
        self, node: RabbitNode, postgres: PostgresServer, vhost: Vhost, database_url: str
    ) -> None:
        self._node = node
        self._postgres = postgres
        self._vhost = vhost
        self._database_url = database_url

    async def cost(self, name: str, count: int) -> Cost:
        """Let one consumer record a backlog of ``count`` runs."""
        superuser = await asyncpg.connect(self._postgres.superuser_url, database=SERVICE)
        try:
            await superuser.execute(EMPTY)
            # The last consumer may have ended between a commit and its ack.
            await self._vhost.empty()
            examples = runs([uuid4() for _ in range(USERS)])
            await pile_up(self._vhost, examples, count, exchange=EVENTS, queue=TOOL_EXECUTED_QUEUE)
            async with self._consumer(name) as pid:
                early = await self._moment(superuser, pid, count // 10)
                late = await self._moment(superuser, pid, count)
            return Cost.between(early, late)
        finally:
            await superuser.close()

    @asynccontextmanager
    async def _consumer(self, name: str) -> AsyncIterator[int]:
        [port] = free_ports(None)
        peer = [str(Path(__file__).with_name("peers.py")), name]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *(["-m", SERVICE, "serve"] if name == OURS else peer)),
            env={
                **base_environment(),
                "AMQP_URL": self._vhost.url(OURS),
                "DATABASE_URL": self._database_url,
                "HTTP_HOST": LOOPBACK,
                "HTTP_PORT": str(port),
                "LOG_LEVEL": "WARNING",
            },
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            await process.wait()

    async def _moment(self, superuser: asyncpg.Connection, pid: int, wanted: int) -> Moment:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (recorded := await superuser.fetchval(RECORDED)) < wanted:
            if time.monotonic() > deadline:
                text = f"{recorded} of {wanted} were recorded in {TIMEOUT_SECONDS:.0f} s"
                raise TimeoutError(text)
            await asyncio.sleep(POLL_SECONDS)
        servers = {"broker": self._node, "postgres": self._postgres}
        parts = {"python": [pid]}
        parts |= {name: [*server.pids.values()] for name, server in servers.items()}
        processor = {part: processor_seconds(*roots) for part, roots in parts.items()}
        return Moment(recorded, time.monotonic(), processor)


def table_row(name: str, costs: Sequence[Cost]) -> str:
    """Return the medians of one way as a row of the table."""
    rate = statistics.median(cost.rate for cost in costs)
    micros = [statistics.median(cost.micros[part] for cost in costs) for part in costs[0].micros]
    return f"| {name} | {rate:,.0f} | {' | '.join(f'{each:.0f}' for each in micros)} |"


async def measure(bench: Bench, count: int, rounds: int) -> None:
    """Measure all ways in turns and print a table."""
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name, its in costs.items():
            its.append(await bench.cost(name, count))
            print(f"round {turn + 1}, {name}: {its[-1].rate:,.0f}/s", file=sys.stderr, flush=True)
    print(f"recording: {count} runs of a kilobyte, median of {rounds}, load average ", end="")
    print(f"{os.getloadavg()[0]:.1f}\n\n| way | runs/s | python µs | broker µs | postgres µs |")
    print("|---|---|---|---|---|")
    for name, its in costs.items():
        print(table_row(name, its))


async def main(count: int, rounds: int) -> None:
    """Start the servers, measure and print."""
    password = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory() as directory,
        RabbitNode.start(Path(directory) / "rabbitmq") as node,
        PostgresServer.start(Path(directory) / "postgres") as postgres,
    ):
        url = await make_database(postgres, SERVICE, password)
        superuser = await asyncpg.connect(postgres.superuser_url, database=SERVICE)
        await superuser.execute(BODIES)
        await superuser.close()
        vhost = Vhost(node, "metering", password)
        await vhost.create(tier_scale=1.0)
        await measure(Bench(node, postgres, vhost, url), count, rounds)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=20_000, help="tool runs each time (20000)")
    options.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    asyncio.run(main(**vars(options.parse_args())))
