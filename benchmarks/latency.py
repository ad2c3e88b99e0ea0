"""How long a run takes from its publication until it is committed, and until Stripe counts it.

In turns with the first, a bare aio-pika consumer acks the same load from a queue of its own: less
than that no consumer can take. Then one run a second on a system that has nothing else to do. All
processes are on one machine and have one clock.

A commit is seen by a notification, which PostgreSQL sends after it has flushed its log; its own
commit timestamps are older than the flush. The trigger costs the batch a little, so that the figure
is rather too high.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from even_load import Load, Times, TooSlowError, started, wait_until, witness
from harness import Servers, durable_servers, load_average, run, say, table
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from peers.witnesses import QUEUE

WARM_UP: Final = 250
"""Runs before the first that count."""

MAX_REQUESTS: Final = 10_000
"""How many the emulator remembers."""

REPORTED: Final = "SELECT count(*) FROM usage_reports WHERE state = 'reported'"

# An answer may come before the relay has noted that the report is forwarded.
REPORTS: Final = """
SELECT e.event_id::text AS event_id, r.identifier,
       extract(epoch FROM least(r.forwarded_at, r.answered_at))::float8 AS at
  FROM usage_events e JOIN usage_reports r USING (claim_id)
"""

HEADER: Final = (
    *("load", "until", "p50 ms", "p99 ms", "max ms", "of the bare consumer's p50", "runs"),
)


@dataclass(slots=True)
class Line:
    """One line of the result: delays in milliseconds, and the p50 that it is compared with."""

    load: str
    until: str
    delays: list[float]
    bare: float = math.nan

    @classmethod
    def of(cls, load: Load, until: str, published: Times, seen: Times) -> "Line":
        """Return what each run took.

        Raises:
            TooSlowError: some were not seen.
        """
        if missing := published.keys() - seen.keys():
            raise TooSlowError(f"{len(missing)} of {len(published)} runs were never {until}")
        delays = sorted((seen[each] - at) * 1000 for each, at in published.items())
        return cls(str(load), until, delays)

    def percentile(self, share: float) -> float:
        """Return the delay that so large a share of runs did not exceed."""
        return self.delays[math.ceil(share * len(self.delays)) - 1]

    def row(self) -> list[str]:
        """Return a row of the table."""
        figures = [self.percentile(0.5), self.percentile(0.99), self.delays[-1]]
        ratio = figures[0] / self.bare
        columns = [self.load, self.until, *(f"{each:.1f}" for each in figures)]
        return [*columns, "" if math.isnan(ratio) else f"{ratio:.1f}", str(len(self.delays))]


async def until_committed(
    servers: Servers, rates: Sequence[int], seconds: int, turns: int
) -> list[Line]:
    """Measure until the commit, in turns with the bare consumer."""
    loads = [Load(rate, rate * seconds) for rate in rates]
    runs_of: dict[Load, Times] = {load: {} for load in loads}
    bare_of: dict[Load, Times] = {load: {} for load in loads}
    async with started(servers, 10, "usage-ingest") as bench:
        vhost = bench.platform.vhost
        async with (
            bench.publisher() as publisher,
            witness("acked", AMQP_URL=vhost.admin_url) as acked,
            witness("committed", DATABASE_URL=bench.ledger_url) as committed,
        ):
            for load in [Load(rates[0], WARM_UP), *loads * turns]:
                ours = await publisher.publish(load)
                await wait_until(lambda: vhost.depth(TOOL_EXECUTED_QUEUE), "consumed")
                bare = await publisher.publish(load, exchange="", key=QUEUE)
                await wait_until(lambda: vhost.depth(QUEUE), "acked")
                runs_of.setdefault(load, {}).update(ours)
                bare_of.setdefault(load, {}).update(bare)
                say(f"committed, acked: {load.count} each at {load}")
    lines = []
    for load in loads:
        bare_line = Line.of(load, "acked by a bare consumer", bare_of[load], acked)
        line = Line.of(load, "committed", runs_of[load], committed)
        line.bare = bare_line.percentile(0.5)
        lines += [bare_line, line]
    return lines


async def until_counted(servers: Servers, loads: Sequence[Load]) -> list[Line]:
    """Measure until Stripe counts a run, each by itself."""
    published: dict[Load, Times] = {}
    counted: Times = {}
    async with started(servers, 0, "usage-ingest", "stripe-reporter") as bench:
        async with (
            bench.publisher() as publisher,
            witness("committed", DATABASE_URL=bench.ledger_url) as committed,
            bench.platform.stripe() as stripe,
        ):
            for load in [Load(loads[0].rate, WARM_UP), *loads]:
                published[load] = await publisher.publish(load)
                total = sum(len(times) for times in published.values())

                async def unanswered(total: int = total) -> int:
                    return total - int(await bench.ledger.fetchval(REPORTED))

                await wait_until(unanswered, "counted")
                # Of more runs at once, the first requests would be forgotten.
                for each in await stripe.requests(MAX_REQUESTS):
                    if each["identifier"] and each["status"] == HTTPStatus.OK:
                        counted.setdefault(each["identifier"], each["at"])
                say(f"counted: {load.count} at {load}")
        reports = await bench.ledger.fetch(REPORTS)
    queued = {each["event_id"]: each["at"] for each in reports}
    counted_runs = {each["event_id"]: counted[each["identifier"]] for each in reports}
    seen = {"committed": committed, "in the reporter's queue": queued, "counted": counted_runs}
    return [Line.of(load, until, published[load], seen[until]) for load in loads for until in seen]


async def main(options: argparse.Namespace) -> None:
    """Start the servers, measure and print a table.

    Raises:
        TooSlowError: a load was not done in time; the table has what was measured before.
    """
    lines: list[Line] = []
    try:
        with durable_servers() as servers:
            lines += await until_committed(servers, options.rates, options.seconds, options.turns)
            loads = [Load(options.counted_rate, options.counted_rate * options.seconds)]
            lines += await until_counted(servers, [*loads, Load(1, options.single_runs)])
    finally:
        if lines:
            print(f"latency: load average {load_average()}\n")
            print(table(HEADER, [line.row() for line in lines]), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual, meaning in (
        ("--seconds", 5, "of a load"),
        ("--turns", 3, "of each load and of the bare consumer"),
        ("--counted-rate", 300, "runs a second, each a report; Stripe takes 1,000"),
        ("--single-runs", 30, "runs on a quiet system, one a second"),
    ):
        parser.add_argument(name, type=int, default=usual, help=f"{meaning} ({usual})")
    rates = parser.add_argument("--rates", type=int, nargs="+", help="runs a second (300 2000)")
    rates.default = [300, 2000]
    try:
        run(main(parser.parse_args()))
    except TooSlowError as error:
        sys.exit(f"latency: {error}")
