"""What a run costs from the queue to the ledger, to the reporter's queue, and to the money.

Each chain works off a backlog of runs by 500 users, as 2,000 runs a second leave it behind, with
every part as a process of its own and servers that wait for their disk. It is measured from the
moment when usage-ingest is ready to the last event; what was recorded before is not counted. (If
that was half of the backlog, the start is measured, too: take a larger one.) At the end the sums
must be exact: every event is once in the ledger, in the reports and at Stripe.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from typing import Final

from chain_run import CHAINS, InexactError, Result, prepared
from harness import Cost, durable_servers, load_average, run, say, table

HEADER: Final = (
    *("chain", "ingest processes", "events", "events/s", "seconds", "reports", "reports/s"),
)


def row(chain: str, processes: int, results: Sequence[Result]) -> list[str]:
    """Return the medians of one chain as a row of the table."""
    cost = Cost.median([each.cost for each in results])
    seconds = statistics.median(each.seconds for each in results)
    reports = statistics.median(each.reports for each in results)
    return [
        chain,
        str(processes),
        f"{results[0].events:,}",
        f"{cost.rate:,.0f}",
        f"{seconds:.1f}",
        f"{reports:,.0f}",
        f"{reports / seconds:,.0f}",
        *(f"{micros:.0f}" for micros in cost.micros.values()),
        str(sum(each.deadlocks for each in results)),
    ]


async def main(options: argparse.Namespace) -> None:
    """Measure each chain with each number of processes in turn, and print a table.

    Raises:
        TimeoutError: one took too long; the table has those before it.
    """
    results: dict[tuple[str, int], list[Result]] = {}
    turns = itertools.product(range(options.rounds), options.chains, options.processes)
    try:
        with durable_servers() as servers:
            for turn, name, processes in turns:
                chain = CHAINS[name]
                async with prepared(servers, chain, options.seconds) as one:
                    result = await one.measure(options.count or chain.count, processes)
                results.setdefault((name, processes), []).append(result)
                say(f"round {turn + 1}, {name}, {processes}: {result.cost.rate:,.0f}/s")
    finally:
        for its in itertools.islice(results.values(), 1):
            print(f"chain: median of {options.rounds}, load average {load_average()}\n")
            header = [*HEADER, *(f"{part} µs" for part in its[0].cost.micros), "deadlocks"]
            print(table(header, [row(*kind, each) for kind, each in results.items()]), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    chains = parser.add_argument("chains", nargs="*", metavar="CHAIN", help=", ".join(CHAINS))
    chains.default = list(CHAINS)
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="of usage-ingest (1)")
    parser.add_argument("--count", type=int, help="runs each time (60000; for reports, 10000)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each (1)")
    parser.add_argument("--seconds", type=float, default=300, help="at most for each (300)")
    chosen = parser.parse_args()
    if unknown := set(chosen.chains) - CHAINS.keys():
        parser.error(f"no such chain: {', '.join(sorted(unknown))}")
    try:
        run(main(chosen))
    except (InexactError, TimeoutError) as error:
        sys.exit(f"chain: {error}")
