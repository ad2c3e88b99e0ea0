"""What does one `allowed` of nexus-publisher cost its host, and does it keep its budget?

The variants take turns, burst by burst. Printed are the processor time of a call in the calling
thread and in the whole process, and, for many callers of an API that hangs, the longest wait.
"""

import argparse
import asyncio
import json
import os
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from aiohttp import web

from nexus_publisher.entitlements import Entitlements
from support.http_servers import serve_routes
from support.usage_api_stand_in import KEY, entitlement

USER = str(uuid4())
PATIENT = 30.0
BUDGET = 0.1

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def answer(request: web.Request) -> web.Response:
    """Answer as the usage API does, with some limits and patterns."""
    denied = [{"server_id": f"premium-{number}-*", "tool_name": "*"} for number in range(5)]
    body = entitlement(request.match_info["user_id"], denied=denied)
    return web.Response(text=json.dumps(body), headers={"Cache-Control": "max-age=300"})


async def hang(_: web.Request) -> web.Response:
    """Answer nobody."""
    await asyncio.sleep(3600)
    return web.Response()


async def costs(size: int, rounds: int) -> str:
    """Measure calls that are answered by the cache and by the API."""
    async with serve_routes(web.get("/v1/entitlements/{user_id}", answer)) as url:
        with Entitlements(url, KEY, budget_seconds=PATIENT) as entitlements:
            await entitlements.aallowed(USER, "weather", "forecast", otherwise="closed")
            found: dict[str, list[float]] = {}
            for _ in range(rounds):
                began = time.thread_time()
                for _ in range(size):
                    entitlements.allowed(USER, "weather", "forecast", otherwise="closed")
                found.setdefault("cached", []).append((time.thread_time() - began) / size)
                began = time.thread_time()
                for _ in range(size):
                    await entitlements.aallowed(USER, "weather", "forecast", otherwise="closed")
                found.setdefault("cached, async", []).append((time.thread_time() - began) / size)
            return ", ".join(
                f"{name} {statistics.median(times) * 1e6:.1f} µs" for name, times in found.items()
            )


async def waits(callers: int) -> str:
    """Measure the longest wait of many callers of an API that hangs, by threads and by tasks."""
    async with serve_routes(web.get("/v1/entitlements/{user_id}", hang)) as url:
        with Entitlements(url, KEY, budget_seconds=BUDGET) as entitlements:
            longest: list[float] = []

            def call() -> None:
                began = time.monotonic()
                entitlements.allowed(uuid4(), "weather", "forecast", otherwise="open")
                longest.append(time.monotonic() - began)

            threads = [threading.Thread(target=call) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            in_threads = max(longest)
        with Entitlements(url, KEY, budget_seconds=BUDGET) as entitlements:

            async def ask() -> float:
                began = time.monotonic()
                await entitlements.aallowed(uuid4(), "weather", "forecast", otherwise="open")
                return time.monotonic() - began

            in_tasks = max(await asyncio.gather(*(ask() for _ in range(callers))))
    return (
        f"longest wait of {callers} callers at once, budget {BUDGET * 1000:.0f} ms:"
        f" {in_threads * 1000:.0f} ms in threads, {in_tasks * 1000:.0f} ms in tasks"
    )


async def main(size: int, rounds: int, callers: int) -> None:
    """Measure and print."""
    print(f"entitlements_cost: {await costs(size, rounds)}; {await waits(callers)};", end=" ")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=2000, help="calls in a burst (2,000)")
    options.add_argument("--rounds", type=int, default=20, help="bursts (20)")
    options.add_argument("--callers", type=int, default=1000, help="callers at once (1,000)")
    asyncio.run(main(**vars(options.parse_args())))
