"""Who of two reporters is at work: told by the broker, which delivers to one of them only."""

import asyncio
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from local_stack.catalogue import VHOST
from metering_chaos.arena import Arena
from metering_chaos.plan import PROCESSES

QUEUE: Final = "stripe-reporter.usage-recorded"
LOOK_EVERY: Final = 0.5


async def watch_shifts(arena: Arena) -> None:
    """Count the times that another process than before reports; never returns."""
    at_work = None
    while True:
        try:
            now = await process_at_work(arena)
        except (aiohttp.ClientError, OSError, TimeoutError):
            now = None  # the broker is away
        if now is not None and at_work not in {None, now}:
            arena.seen["times the other reporter took over"] += 1
            arena.say(f"{now} reports instead of {at_work}")
        at_work = now or at_work
        await asyncio.sleep(LOOK_EVERY)


async def process_at_work(arena: Arena) -> str | None:
    """Return the process whose connection the broker delivers reports to; None if there is none.

    Raises:
        aiohttp.ClientError: the broker can't be asked.
    """
    consumers = await _ask(arena, f"consumers/{quote(VHOST, safe='')}")
    ports = {
        each["channel_details"].get("peer_port")
        for each in consumers
        if each["queue"]["name"] == QUEUE and each["active"]
    }
    return next((name for name in PROCESSES if ports & arena.ports(name, "broker")), None)


async def _ask(arena: Arena, path: str) -> Any:
    """Ask the management API as the broker's administrator."""
    broker = arena.stack.broker
    login = aiohttp.encode_basic_auth(broker.admin.user, broker.admin.password)
    url = URL(f"{broker.management_url}/api/{path}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(
            headers={"Authorization": login}, raise_for_status=True, timeout=timeout
        ) as session,
        session.get(url) as answer,
    ):
        return await answer.json()
