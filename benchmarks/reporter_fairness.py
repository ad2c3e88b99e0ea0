"""Does one busy customer delay the others? The reporter as a process, on real servers.

Half of all reports are one customer's, far more than Stripe accepts of it one at a time. Printed
is how long all other reports take from their publication until they reach Stripe.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aio_pika.abc import AbstractExchange

from local_stack.provision import provide_broker, provide_postgres
from nexus_contracts import Event, UsageRecorded
from nexus_messaging.topology import INTERNAL
from support.events import report
from support.metrics import sample
from support.platform import Platform, standalone_platform
from support.vhost import Vhost, message
from support.waiting import eventually

SERVICE: Final = "stripe_reporter"
SETTINGS: Final = {"STRIPE_MAX_CALLS_PER_SECOND": "800", "LOG_LEVEL": "WARNING"}

PUT_OFF: Final = 'stripe_reporter_reports_total{outcome="customer_busy"}'
"""Deliveries whose customer had too many before them."""

TICK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """The load: ``share`` of ``rate`` reports a second is one customer's."""

    rate: int
    seconds: int
    share: float
    others: int
    call_seconds: float


@dataclass(slots=True)
class Record:
    """When each report was published, by identifier, in unix seconds."""

    busy: dict[str, float] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)


async def measure(load: Load, platform: Platform) -> str:
    """Apply the load to a running reporter and return the result in one line."""
    busy, *others = await platform.customers(1 + load.others)
    async with platform.stripe() as stripe:
        await stripe.set_options(call_seconds=load.call_seconds)
        record = await _publish_load(load, platform.vhost, busy, others)

        async def pending() -> int:
            return len(record.others.keys() - (await stripe.attempts()).keys())

        offered = time.time()
        await eventually(pending, lambda count: not count, within=120, every=0.5)
        caught_up = time.time() - offered
        seen = {each["identifier"]: each["at"] for each in reversed(await stripe.requests(10_000))}
        counted = {name for name, each in (await stripe.attempts()).items() if each["accepted"]}
    delays = sorted(seen[name] - at for name, at in record.others.items())
    percentiles = statistics.quantiles(delays, n=100)
    put_off = await sample(platform.services["stripe-reporter"].url, PUT_OFF)
    return (
        f"reporter_fairness: {load.rate}/s for {load.seconds} s, {load.share:.0%} one customer's,"
        f" {load.call_seconds * 1000:.0f} ms a call: others p50 {percentiles[49]:.3f} s,"
        f" p99 {percentiles[98]:.3f} s, max {delays[-1]:.3f} s (n={len(delays)},"
        f" caught up {caught_up:.1f} s after);"
        f" busy one {len(counted & record.busy.keys())} of {len(record.busy)} counted,"
        f" {put_off:.0f} deliveries put off; load average {os.getloadavg()[0]:.1f}"
    )


async def _publish_load(load: Load, vhost: Vhost, busy: str, others: list[str]) -> Record:
    """Publish evenly, as usage-ingest does; late ticks are caught up."""
    record = Record()
    async with vhost.channel() as channel:
        exchange = await channel.get_exchange(INTERNAL, ensure=False)
        began = time.monotonic()
        published = 0
        while published < load.rate * load.seconds:
            due = min(int((time.monotonic() - began) * load.rate), load.rate * load.seconds)
            events = []
            for number in range(published, due):
                is_busy = int(number * load.share) != int((number + 1) * load.share)
                customer = busy if is_busy else others[len(record.others) % len(others)]
                events.append(event := report(customer))
                into = record.busy if is_busy else record.others
                into[event.data.identifier] = time.time()
            published = due
            await asyncio.gather(*(_publish(exchange, event) for event in events))
            await asyncio.sleep(TICK)
    return record


async def _publish(exchange: AbstractExchange, event: Event[UsageRecorded]) -> None:
    await exchange.publish(message(event), event.type)


async def main(load: Load) -> None:
    """Start a broker and a database server, measure, and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            provide_broker(directory / "rabbitmq") as broker,
            provide_postgres(directory / "postgres") as postgres,
        ):
            async with standalone_platform(
                broker, postgres, directory, SETTINGS, [SERVICE]
            ) as platform:
                platform.start("stripe-reporter")
                print(await measure(load, platform))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=int, default=200, help="reports a second (200)")
    options.add_argument("--seconds", type=int, default=20, help="for so long (20)")
    options.add_argument("--share", type=float, default=0.5, help="the busy customer's (0.5)")
    options.add_argument("--others", type=int, default=100, help="other customers (100)")
    options.add_argument("--call-seconds", type=float, default=0.1, help="Stripe's pace (0.1)")
    asyncio.run(main(Load(**vars(options.parse_args()))))
