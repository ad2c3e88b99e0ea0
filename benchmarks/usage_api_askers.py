"""How often is the usage API asked, and what becomes of more askers than it can answer?

While runs are recorded, a host decides on each by `allowed` of nexus-publisher: printed are how
many decisions the cache answers, and what the API and PostgreSQL spend on all of them. Then many
callers ask at once, each about another user: printed is how long answers and refusals take.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections import Counter
from typing import Final
from uuid import UUID

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from harness import load_average, run, say, table
from local_stack.server_process import ServerProcess
from nexus_publisher.entitlements import Entitlements, Source
from usage_api import USERS, Bench, filled_bench

ANSWERED: Final = "usage_api_requests"
CROWDS: Final = (100, 300, 1000)
EVENTS: Final = 10_000


async def decide(
    bench: Bench, server: ServerProcess, users: tuple[UUID, ...], options: argparse.Namespace
) -> list[str]:
    """Decide ``rate`` times a second, of the users in turn; return a row."""
    before, began = await _counted(server.url), bench.spent(server)[0]
    with Entitlements(server.url, bench.secret, budget_seconds=1.0) as entitlements:
        due, ends = time.monotonic(), time.monotonic() + options.seconds
        for user in itertools.cycle(users):
            await entitlements.aallowed(user, "files", "read", otherwise="closed")
            due += 1 / options.decisions
            if due > ends:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        sources = entitlements.stats().sources
    answers = await _counted(server.url) - before
    calls, fetched = sum(sources.values()), answers.total()
    api = bench.spent(server)[0] - began
    cached = (sources[Source.HIT] + sources[Source.STALE]) / calls
    say(f"{calls} decisions, {fetched:.0f} questions")
    return [
        f"{calls}",
        f"{cached:.1%}",
        f"{fetched:.0f}",
        f"{answers['not_modified'] / fetched:.1%}",
        f"{api / fetched * 1e6:.0f}",
        f"{api / calls * 1e6:.0f}",
    ]


async def crowd(bench: Bench, server: ServerProcess, size: int) -> list[str]:
    """Ask ``size`` questions at once; return a row."""
    headers = {"Authorization": f"Bearer {bench.secret}"}
    connections = aiohttp.TCPConnector(limit=0)
    took: dict[int, list[float]] = {200: [], 503: []}
    began = time.perf_counter()

    async def ask(client: aiohttp.ClientSession, number: int) -> None:
        user = UUID(int=number % USERS + 1)
        async with client.get(f"/v1/entitlements/{user}") as answer:
            await answer.read()
        took[answer.status].append(time.perf_counter() - began)

    async with aiohttp.ClientSession(server.url, headers=headers, connector=connections) as client:
        await asyncio.gather(*(ask(client, number) for number in range(size)))
    return [f"{size}", *_shown(took[200]), *_shown(took[503])]


def _shown(took: list[float]) -> tuple[str, str, str]:
    if not took:
        return "0", "", ""
    return f"{len(took)}", f"{statistics.median(took):.2f}", f"{max(took):.2f}"


async def _counted(url: str) -> Counter[str]:
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    counted: Counter[str] = Counter()
    for family in families:
        for sample in family.samples:
            if sample.name == f"{ANSWERED}_total":
                counted[sample.labels["answer"]] += int(sample.value)
    return counted


async def main(options: argparse.Namespace) -> None:
    """Decide, crowd, and print two tables."""
    async with (
        filled_bench(EVENTS) as (bench, _, others),
        bench.server() as server,
        bench.recording(others, options.rate),
    ):
        decided = await decide(bench, server, others, options)
        crowds = [await crowd(bench, server, size) for size in CROWDS]
    print(f"usage_api_askers: {options.rate} runs/s recorded, load average {load_average()}\n")
    titles = ["decisions", "cached", "questions", "304", "API CPU µs/question", "/decision"]
    print(table(titles, [decided]))
    answers = ["answered", "median s", "longest s", "refused", "median s", "longest s"]
    print(table(["askers at once", *answers], crowds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of deciding (120)")
    parser.add_argument("--decisions", type=float, default=250.0, help="in a second (250)")
    parser.add_argument("--rate", type=int, default=250, help="runs recorded in a second (250)")
    run(main(parser.parse_args()))
