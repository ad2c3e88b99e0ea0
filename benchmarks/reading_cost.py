"""Does reading Stripe's own sums cost reports their pace? The reporter works off a backlog.

In turns it has nothing to read, and as many customers as it can read at its pace meanwhile. Compare
the reports per second and the processor time of one run of this program alone. At last it has
nothing but sums to read, which says what a reading costs.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from operator import le
from pathlib import Path
from typing import Final

from harness import Cost, Moment, Servers, durable_servers, load_average, run, say, table
from local_stack.catalogue import METER
from nexus_messaging.topology import INTERNAL, USAGE_COUNTED_QUEUE, USAGE_RECORDED_QUEUE
from support.backlog import Example, pile_up
from support.events import report
from support.platform import Platform, standalone_platform
from support.waiting import eventually

SERVICE: Final = "stripe-reporter"
MODULE: Final = "stripe_reporter"
CUSTOMERS: Final = 200
READS_PER_SECOND: Final = 5
"""The default with a live key."""

SETTINGS: Final = {
    "LOG_LEVEL": "WARNING",
    "STRIPE_MAX_CALLS_PER_SECOND": "10000",
    "STRIPE_READS_PER_SECOND": str(READS_PER_SECOND),
}
DUE: Final = f"""
INSERT INTO summaries_due (stripe_customer_id, meter, active_at, wanted_at, next_try)
SELECT unnest(ARRAY[{{}}]), '{METER}', now(), now(), now() - interval '1 hour'
"""
WARM_SHARE: Final = 0.1
"""Of the reports are answered, or of the customers read, before it is measured."""

READERS_ONLY: Final = {"STRIPE_READS_PER_SECOND": "50"}
CUSTOMERS_ALONE: Final = 800
"""Customers whose sums are read while there are no reports, and how fast."""


async def measure(servers: Servers, count: int, seconds: float, *, reading: bool) -> Cost:
    """Return what a report costs, with sums being read or none.

    Raises:
        AssertionError: the backlog was not worked off in time.
    """
    logs = Path(tempfile.mkdtemp(dir=servers.directory))
    async with standalone_platform(
        servers.broker, servers.postgres, logs, SETTINGS, [MODULE]
    ) as platform:
        platform.start_stripe()
        customers = await platform.customers(CUSTOMERS)
        examples = [Example.of(report(customer)) for customer in customers]
        await pile_up(
            platform.vhost, examples, count, exchange=INTERNAL, queue=USAGE_RECORDED_QUEUE
        )
        if reading:
            await _due(platform, customers)
        platform.start(SERVICE)
        early = await _moment(platform, servers, int(count * WARM_SHARE), seconds)
        read_before = await platform.vhost.depth(USAGE_COUNTED_QUEUE)
        late = await _moment(platform, servers, count, seconds)
        read = await platform.vhost.depth(USAGE_COUNTED_QUEUE) - read_before
        say(f"{read} readings in {late.time - early.time:.1f} s")
    return Cost.between(early, late)


async def measure_readings(servers: Servers, seconds: float) -> Cost:
    """Return what a reading costs while there are no reports.

    Raises:
        AssertionError: not all was read in time.
    """
    logs = Path(tempfile.mkdtemp(dir=servers.directory))
    settings = SETTINGS | READERS_ONLY
    async with standalone_platform(
        servers.broker, servers.postgres, logs, settings, [MODULE]
    ) as platform:
        platform.start_stripe()
        await _due(platform, await platform.customers(CUSTOMERS_ALONE))
        platform.start(SERVICE)
        moments = []
        for number in (int(CUSTOMERS_ALONE * WARM_SHARE), CUSTOMERS_ALONE):
            depth = partial(platform.vhost.depth, USAGE_COUNTED_QUEUE)
            read = await eventually(depth, partial(le, number), within=seconds, every=0.2)
            moments.append(_now(platform, servers, read))
    return Cost.between(*moments)


async def _due(platform: Platform, customers: Sequence[str]) -> None:
    names = ", ".join(f"'{customer}'" for customer in customers)
    await platform.rows(MODULE, f"{DUE.format(names)} RETURNING 1")


async def _moment(platform: Platform, servers: Servers, number: int, seconds: float) -> Moment:
    async with platform.stripe() as stripe:

        async def counted() -> int:
            return sum(each["events"] for each in await stripe.sums())

        reached = await eventually(
            counted, lambda found: found >= number, within=seconds, every=0.2
        )
    return _now(platform, servers, reached)


def _now(platform: Platform, servers: Servers, number: int) -> Moment:
    root = platform.services[SERVICE].pid
    assert root is not None
    return Moment.now(number, {"reporter": [root], **servers.parts})


def rows(costs: Mapping[str, list[Cost]]) -> list[list[str]]:
    """Return a row of medians for each variant, with its ratios to the first one's."""
    base = Cost.median(next(iter(costs.values())))
    found = []
    for name, its in costs.items():
        median = Cost.median(its)
        found.append(
            [
                name,
                f"{median.rate:,.0f}",
                f"{median.rate / base.rate:.3f}",
                *(f"{micros:.0f}" for micros in median.micros.values()),
                f"{median.micros['reporter'] / base.micros['reporter']:.3f}",
            ]
        )
    return found


async def main(options: argparse.Namespace) -> None:
    """Measure both in turns, then readings alone, and print tables."""
    costs: dict[str, list[Cost]] = {"nothing": [], f"{READS_PER_SECOND} a second": []}
    with durable_servers() as servers:
        for turn in range(options.rounds):
            for name, its in costs.items():
                reading = name != "nothing"
                cost = await measure(servers, options.count, options.seconds, reading=reading)
                its.append(cost)
                say(f"round {turn + 1}, {name}: {cost.rate:,.0f}/s, {cost.micros['reporter']:.0f}")
        alone = await measure_readings(servers, options.seconds)
    print(f"reading_cost: median of {options.rounds}, load average {load_average()}\n")
    parts = [f"{part} µs" for part in next(iter(costs.values()))[0].micros]
    print(table(["read", "reports/s", "ratio", *parts, "reporter's ratio"], rows(costs)), end="")
    micros = [f"{value:,.0f}" for value in alone.micros.values()]
    print(f"\n{table(['readings/s alone', *parts], [[f'{alone.rate:.0f}', *micros]])}", end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="reports each time (10000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--seconds", type=float, default=120, help="at most for each (120)")
    try:
        run(main(parser.parse_args()))
    except AssertionError as error:
        sys.exit(f"reading_cost: {error}")
