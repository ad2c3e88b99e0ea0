"""How much does the events API add to an HTTP server that only publishes with confirms?

The API and a bare Starlette app, each a process on the same uvicorn, take turns on one broker.
Printed are the events per second and the processor time of each for an event, in the server's
process alone, in requests of one event and of a hundred. The bare app has no keys, limits or
validation, and does not split, keep or check anything.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import aiormq
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from local_stack.rabbitmq import RabbitNode
from local_stack.server_process import ServerProcess
from nexus_service.api_keys import make_api_key
from nexus_service.asgi import serving_asgi
from nexus_service.lifecycle import stop_on_signal
from support.events import tool_run
from support.processor_time import processor_seconds
from support.vhost import Vhost

OURS: Final = "events-api"
BARE: Final = "bare Starlette app"
SIZES: Final = {1: 32, 100: 4}
"""Events in a request, and how many requests are under way at once."""

WARM_UP: Final = 0.1
"""The share of the requests that is not measured."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Events per second, and microseconds of the server's processor time for an event."""

    rate: float
    micros: float


def bare_app(amqp_url: str) -> Starlette:
    """Return an app that publishes each event of a request, and answers after the confirms."""
    channels: list[aiormq.abc.AbstractChannel] = []

    async def publish(request: Request) -> Response:
        if not channels:
            connection = await aiormq.connect(amqp_url)
            channels.append(await connection.channel(publisher_confirms=True))
        sent: Any = json.loads(await request.body())
        events = sent if isinstance(sent, list) else [sent]
        await asyncio.gather(*(_publish(channels[0], event) for event in events))
        return JSONResponse({"accepted": len(events)}, 202)

    async def ready(_request: Request) -> Response:
        return Response()

    post = Route("/v1/events", publish, methods=["POST"])
    return Starlette(routes=[post, Route("/readyz", ready)])


async def _publish(channel: aiormq.abc.AbstractChannel, event: dict[str, Any]) -> None:
    await channel.basic_publish(
        json.dumps(event).encode(),
        exchange="events",
        routing_key=event["type"],
        properties=aiormq.spec.Basic.Properties(delivery_mode=2, message_id=event["id"]),
        mandatory=True,
    )


async def serve_bare(amqp_url: str, port: int) -> None:
    """Serve the bare app until SIGTERM."""
    stop = asyncio.Event()
    stop_on_signal(stop)
    async with serving_asgi(bare_app(amqp_url), LOOPBACK, port):
        await stop.wait()


class Bench:
    """A broker on which the servers are measured one after the other."""

    def __init__(self, vhost: Vhost, directory: Path) -> None:
        self._vhost = vhost
        self._directory = directory
        self._secret, key = make_api_key("bench", ["*"], ["*"])
        self._settings = {
            "AMQP_URL": vhost.url("publisher"),
            "API_KEYS": key.configured,
            "API_RATE_LIMIT": "1000000",
        }

    async def cost(self, name: str, size: int, count: int) -> Cost:
        """Have one server publish ``count`` events in requests of ``size``."""
        bodies = [_body(size) for _ in range(count // size)]
        warm_up = int(len(bodies) * WARM_UP)
        async with self._server(name) as server, self._client(server.url) as client:
            await _send(client, bodies[:warm_up], SIZES[size])
            began, spent = time.monotonic(), processor_seconds(server.pids[name])
            await _send(client, bodies[warm_up:], SIZES[size])
            seconds = time.monotonic() - began
            spent = processor_seconds(server.pids[name]) - spent
        await self._vhost.empty()
        measured = (len(bodies) - warm_up) * size
        return Cost(measured / seconds, spent / measured * 1e6)

    @asynccontextmanager
    async def _server(self, name: str) -> AsyncIterator[ServerProcess]:
        [port] = free_ports(None)
        ours = ["-m", "usage_ingest", OURS]
        bare = [__file__, "--serve-bare", str(port)]
        server = ServerProcess(
            name,
            [sys.executable, *(ours if name == OURS else bare)],
            url=f"http://{LOOPBACK}:{port}",
            ready_path="/readyz",
            log=self._directory / f"{name}.log",
            env=base_environment() | self._settings | {"HTTP_PORT": str(port)},
            grace=10.0,
            on_start=lambda: None,
        )
        await asyncio.to_thread(server.launch_and_wait)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.stop)

    def _client(self, url: str) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._secret}", "Content-Type": "application/json"}
        return aiohttp.ClientSession(url, headers=headers, raise_for_status=True)


def _body(size: int) -> bytes:
    events = [tool_run(token_count=512, metadata={"model": "small"}).body() for _ in range(size)]
    return events[0] if size == 1 else b"[%b]" % b",".join(events)


async def _send(client: aiohttp.ClientSession, bodies: Sequence[bytes], at_once: int) -> None:
    waiting = iter(bodies)

    async def work() -> None:
        for body in waiting:
            async with client.post("/v1/events", data=body) as answer:
                await answer.read()

    await asyncio.gather(*(work() for _ in range(at_once)))


async def measure(bench: Bench, count: int, rounds: int) -> None:
    """Measure both servers in turns and print a table."""
    print(f"events_api: {count} tool runs, median of {rounds}, load average ", end="")
    print(f"{os.getloadavg()[0]:.1f}\n\n| events in a request | server | events/s | CPU µs |")
    print("|---|---|---|---|")
    for size in SIZES:
        costs: dict[str, list[Cost]] = {OURS: [], BARE: []}
        for _ in range(rounds):
            for name, its in costs.items():
                its.append(await bench.cost(name, size, count))
        rates = {n: statistics.median(c.rate for c in its) for n, its in costs.items()}
        micros = {n: statistics.median(c.micros for c in its) for n, its in costs.items()}
        for name, rate in rates.items():
            print(f"| {size} | {name} | {rate:,.0f} | {micros[name]:.0f} |")
        print(
            f"| {size} | ratio | {rates[OURS] / rates[BARE]:.2f} "
            f"| {micros[BARE] / micros[OURS]:.2f} |",
            flush=True,
        )


async def main(count: int, rounds: int) -> None:
    """Start the broker, measure and print."""
    with (
        tempfile.TemporaryDirectory() as directory,
        RabbitNode.start(Path(directory) / "rabbitmq") as node,
    ):
        vhost = Vhost(node, "metering", secrets.token_hex(16))
        await vhost.create(tier_scale=1.0)
        await measure(Bench(vhost, Path(directory)), count, rounds)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=20_000, help="events each time (20000)")
    options.add_argument("--rounds", type=int, default=5, help="turns of each server (5)")
    options.add_argument("--serve-bare", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve_bare:
        asyncio.run(serve_bare(os.environ["AMQP_URL"], given.serve_bare))
    else:
        asyncio.run(main(given.count, given.rounds))
