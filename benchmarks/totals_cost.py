"""What do totals by hour cost, over usage-ingest, the broker and PostgreSQL, folding included?

A backlog of runs by 500 users with 20 tools each is recorded, claimed and relayed, in turns with
totals and without: the triggers that append deltas are disabled. Both run until all is relayed, and
for another fold. Compare the sums of one run of this program alone.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from typing import Final

from chain_run import Chain, InexactError, prepared
from harness import Cost, durable_servers, load_average, run, say, table
from usage_ingest.app import FOLD_EVERY

CHAIN: Final = Chain("the reporter's queue", window=10, tools=20, rest=FOLD_EVERY + 1)
PARTS: Final = ("usage-ingest", "broker", "postgres")


def rows(costs: Mapping[str, list[Cost]]) -> list[list[str]]:
    """Return a row of medians for each variant, with the ratio of its sum to the first one's."""
    of = {
        name: [sum(each.micros[part] for part in PARTS) for each in its]
        for name, its in costs.items()
    }
    base = statistics.median(next(iter(of.values())))
    found = []
    for name, its in costs.items():
        medians = Cost.median(its).micros
        total = statistics.median(of[name])
        parts = [f"{medians[part]:.1f}" for part in PARTS]
        each = " ".join(f"{one:.1f}" for one in of[name])
        found.append([name, *parts, f"{total:.1f}", f"{total / base:.3f}", each])
    return found


async def main(options: argparse.Namespace) -> None:
    """Measure both variants in turns, and print a table.

    Raises:
        InexactError: the totals are not those of the runs.
        TimeoutError: one took too long.
    """
    costs: dict[str, list[Cost]] = {"without": [], "with": []}
    with durable_servers() as servers:
        for turn in range(options.rounds):
            for name, its in costs.items():
                async with prepared(servers, CHAIN, options.seconds) as one:
                    if name == "without":
                        await one.switch_totals_off()
                    result = await one.measure(options.count, 1)
                    expected = (options.count, options.count) if name == "with" else (0, 0)
                    if (folded := await one.totals()) != expected:
                        raise InexactError(f"{folded} of {expected} are folded")
                its.append(result.cost)
                total = sum(result.cost.micros[part] for part in PARTS)
                say(f"round {turn + 1}, {name}: {total:.1f} µs")
    print(f"totals_cost: median of {options.rounds}, load average {load_average()}\n")
    header = ["totals", *(f"{part} µs" for part in PARTS), "sum µs", "ratio", "each"]
    print(table(header, rows(costs)), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60_000, help="runs each time (60000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--seconds", type=float, default=300, help="at most for each (300)")
    try:
        run(main(parser.parse_args()))
    except (InexactError, TimeoutError) as error:
        sys.exit(f"totals_cost: {error}")
