"""What does one call of nexus-publisher cost its host, compared with one line of a log file?

The variants take turns, burst by burst, so that other load on the machine affects them alike.
Printed are each variant's processor time for a call, in the thread that calls and in the whole
process with the thread that delivers, and their ratios to writing one line with `logging`.
"""

import argparse
import asyncio
import logging
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from local_stack.ports import LOOPBACK, free_ports
from local_stack.provision import provide_broker
from nexus_publisher import Dropped, Publisher
from nexus_publisher.amqp import AmqpTransport
from support.vhost import open_vhost

WARM_UP = 3
FLUSH_SECONDS = 60.0
USER = uuid4()
MIB = 1024 * 1024


@dataclass
class Variant:
    """A variant: ``call`` is measured, ``settle`` waits until all of its work is done."""

    name: str
    call: Callable[[], object]
    settle: Callable[[], object]
    calling: list[float] = field(default_factory=list)
    in_all: list[float] = field(default_factory=list)


def logging_variant(path: Path) -> Variant:
    """Return the variant that the others are compared to: a line in a file."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log = logging.getLogger("benchmark")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    text = "tool %s of server %s ended for user %s: %s"
    return Variant(
        "a line of a log file",
        lambda: log.info(text, "forecast", "weather", USER, "succeeded"),
        handler.flush,
    )


def publisher_variant(name: str, publisher: Publisher, *, up: bool) -> Variant:
    """Return a variant that records a tool run."""

    def call() -> None:
        result = publisher.tool_executed(
            user_id=USER,
            server_id="weather",
            tool_name="forecast",
            origin="hub",
            status="succeeded",
            token_count=1234,
            metadata={"model": "small"},
        )
        assert not isinstance(result, Dropped), result

    def settle() -> None:
        if up:
            assert publisher.flush(FLUSH_SECONDS)

    return Variant(name, call, settle)


def measure(variants: list[Variant], size: int, rounds: int) -> str:
    """Make ``rounds`` bursts of ``size`` calls of each variant, in turns; return the figures."""
    for turn in range(WARM_UP + rounds):
        for variant in variants:
            in_all, calling = time.process_time(), time.thread_time()
            for _ in range(size):
                variant.call()
            calling = time.thread_time() - calling
            variant.settle()
            in_all = time.process_time() - in_all
            if turn >= WARM_UP:
                variant.calling.append(calling / size)
                variant.in_all.append(in_all / size)
    line = statistics.median(variants[0].calling)
    figures = ", ".join(
        f"{each.name} {statistics.median(each.calling) * 1e6:.1f} µs"
        f" ({statistics.median(each.calling) / line:.1f};"
        f" {statistics.median(each.in_all) / line:.1f} with its delivery)"
        for each in variants
    )
    return (
        f"publisher_cost: bursts of {size}, median of {rounds}: {figures};"
        f" load average {os.getloadavg()[0]:.1f}"
    )


async def main(size: int, rounds: int) -> None:
    """Start a broker, measure, and print."""
    with tempfile.TemporaryDirectory() as name, provide_broker(Path(name) / "broker") as broker:
        [port] = free_ports(None)
        async with open_vhost(broker, secrets.token_hex(8)) as vhost:
            urls = {"up": vhost.url("publisher"), "away": f"amqp://p:p@{LOOPBACK}:{port}/x"}
            print(await asyncio.to_thread(compare, Path(name), urls, size, rounds))


def compare(directory: Path, urls: Mapping[str, str], size: int, rounds: int) -> str:
    """Measure with the broker up and away, with a spool and without; return the figures."""
    with ExitStack() as stack:
        variants = [logging_variant(directory / "log")]
        for state, url in urls.items():
            for kind, spool in (("spool", directory / state), ("memory", None)):
                publisher = Publisher(
                    AmqpTransport([url]),
                    source="host",
                    spool=spool,
                    memory_bytes=256 * MIB,
                    handle_sigterm=False,
                )
                stack.callback(publisher.close)
                variants.append(publisher_variant(f"{kind}, {state}", publisher, up=state == "up"))
        return measure(variants, size, rounds)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=500, help="calls in a burst (500)")
    options.add_argument("--rounds", type=int, default=40, help="bursts of each variant (40)")
    asyncio.run(main(**vars(options.parse_args())))
