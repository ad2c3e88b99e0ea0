"""Harm by Stripe and by those who use its dashboard: bad answers, keys, customers, another time."""

import asyncio
from typing import Final

import aiohttp

from metering_chaos.arena import Arena
from metering_chaos.plan import Fault

MOST_SKEWED: Final = 240
"""Seconds; Stripe takes events of up to five minutes ahead."""


async def answer(arena: Arena, fault: Fault) -> None:
    """Let some calls fail, before or after their effect."""
    kind, when = fault.target.split()
    seconds = fault.seconds if kind == "latency" else 0.0
    times = 1 + fault.draw % (40 if kind in {"rate_limited", "lock_timeout"} else 12)
    await arena.stripe.add_fault(kind, when=when, seconds=seconds, times=times, method="POST")


async def revoke_key(arena: Arena, fault: Fault) -> None:
    """Refuse the key for a while."""
    key = arena.stack.stripe_key
    await arena.stripe.set_key(key, "revoked")
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await arena.stripe.set_key(key, "valid")


async def delete_customer(arena: Arena, fault: Fault) -> None:
    """Delete a customer."""
    stack = arena.stack
    headers = {"Authorization": f"Bearer {stack.stripe_key}"}
    url = f"{stack.emulator.url}/v1/customers"
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        async with session.get(url) as found:
            customers = (await found.json())["data"]
        if customers:
            chosen = customers[fault.draw % len(customers)]["id"]
            async with session.delete(f"{url}/{chosen}"):
                return


async def shift_clock(arena: Arena, fault: Fault) -> None:
    """Let Stripe's clock jump, forward or back, and after a while to where it was."""
    seconds = fault.draw % (2 * MOST_SKEWED + 1) - MOST_SKEWED
    before = await _calls(arena)
    await arena.stripe.advance_clock(seconds)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await arena.stripe.advance_clock(-seconds)
    arena.seen["calls at a time that was not Stripe's"] += await _calls(arena) - before


async def _calls(arena: Arena) -> int:
    return sum(each["attempts"] for each in (await arena.stripe.attempts()).values())
