"""Where usage-ingest's processor time for a run goes, by part, on the way from queue to ledger.

One process records a backlog under a sampling profiler (``peers/sampled.py``). The shares are of
the samples; the microseconds are these shares of the process's processor time for a run, which the
profiler raises a little.
"""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

import asyncpg

from harness import Cost, Moment, durable_servers, load_average, pile_up_runs, run, table
from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from support.databases import make_database
from support.vhost import Vhost

SERVICE: Final = "usage_ingest"
SAMPLED: Final = Path(__file__).parent / "peers" / "sampled.py"
RECORDED: Final = "SELECT count(*) FROM usage_events"
POLL_SECONDS: Final = 0.1
SAMPLES_SECONDS: Final = 10.0
"""How long the profiler may take to write its samples."""


class TooSlowError(Exception):
    """The backlog was not recorded in time."""


async def reach(ledger: asyncpg.Connection, count: int, deadline: float) -> int:
    """Wait until ``count`` runs are recorded; return how many are.

    Raises:
        TooSlowError: the deadline is over.
    """
    while (recorded := int(await ledger.fetchval(RECORDED))) < count:
        if time.monotonic() > deadline:
            text = f"{recorded} of {count} runs were recorded in time"
            raise TooSlowError(f"{text}; load average {load_average()}")
        await asyncio.sleep(POLL_SECONDS)
    return recorded


async def main(count: int, seconds: float) -> None:
    """Start the servers, let usage-ingest record, and print a table."""
    password = secrets.token_hex(16)
    with durable_servers() as servers:
        url = await make_database(servers.postgres, SERVICE, password)
        vhost = Vhost(servers.broker, "metering", password)
        await vhost.create(tier_scale=1.0)
        await pile_up_runs(vhost, count)
        ledger = await asyncpg.connect(servers.postgres.superuser_url, database=SERVICE)
        [port] = free_ports(None)
        settings = {
            "AMQP_URL": vhost.url("usage-ingest"),
            "DATABASE_URL": url,
            "HTTP_HOST": LOOPBACK,
            "HTTP_PORT": str(port),
            "LOG_LEVEL": "WARNING",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, SAMPLED, stdout=PIPE, env={**base_environment(), **settings}
        )
        assert process.stdout is not None
        try:
            parts, deadline = {"python": [process.pid]}, time.monotonic() + seconds
            early = Moment.now(await reach(ledger, count // 10, deadline), parts)
            process.send_signal(signal.SIGUSR2)
            late = Moment.now(await reach(ledger, count * 9 // 10, deadline), parts)
            process.send_signal(signal.SIGUSR2)
            async with asyncio.timeout(SAMPLES_SECONDS):
                samples: dict[str, int] = json.loads(await process.stdout.readline())
        finally:
            process.terminate()
            await process.communicate()
            await ledger.close()

    cost, total = Cost.between(early, late), sum(samples.values())
    micros = cost.micros["python"]
    print(
        f"time_shares: {late.number - early.number} runs, {micros:.0f} µs of Python for each,",
        end="",
    )
    print(f" {total} samples, load average {load_average()}\n")
    rows = [
        [part, f"{number / total:.0%}", f"{number / total * micros:.1f}"]
        for part, number in sorted(samples.items(), key=lambda each: -each[1])
    ]
    print(table(["part", "share", "µs for a run"], rows), end="")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=60_000, help="tool runs (60000)")
    options.add_argument("--seconds", type=float, default=200, help="at most for them (200)")
    try:
        run(main(**vars(options.parse_args())))
    except TooSlowError as error:
        sys.exit(f"time_shares: {error}")
