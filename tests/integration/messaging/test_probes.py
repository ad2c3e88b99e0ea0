"""What probes are answered, over real HTTP."""

import asyncio

import aiohttp
from prometheus_client import CollectorRegistry

from local_stack.ports import LOOPBACK, free_ports
from nexus_service.http import serving


async def test_a_check_that_hangs_is_named_before_a_probe_gives_up() -> None:
    """The other checks are answered beside it."""

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    async def fails() -> str | None:
        return "not connected"

    (port,) = free_ports(None)
    checks = {"database": hangs, "other": hangs, "broker": fails}
    async with (
        serving(LOOPBACK, port, CollectorRegistry(), health={}, readiness=checks),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4)) as session,
        session.get(f"http://{LOOPBACK}:{port}/readyz") as answer,
    ):
        body = await answer.json()

    silent = "no answer within 2 s"
    assert answer.status == 503
    assert body["wrong"] == {"database": silent, "other": silent, "broker": "not connected"}
