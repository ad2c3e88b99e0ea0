"""Faults of Stripe and of the users of its dashboard: answers, keys, customers, the clock."""

import asyncio
from typing import Final

import aiohttp

from metering_chaos.environment import Environment
from metering_chaos.plan import Fault

MAX_SKEW_SECONDS: Final = 240
"""Stripe accepts events of up to five minutes ahead."""


async def answer(environment: Environment, fault: Fault) -> None:
    """Let some calls fail, before or after their effect."""
    kind, when = fault.target.split()
    seconds = fault.seconds if kind == "latency" else 0.0
    times = 1 + fault.draw % (40 if kind in {"rate_limited", "lock_timeout"} else 12)
    await environment.stripe.add_fault(kind, when=when, seconds=seconds, times=times, method="POST")


async def revoke_key(environment: Environment, fault: Fault) -> None:
    """Refuse the key for a while."""
    key = environment.stack.stripe_key
    await environment.stripe.set_key(key, "revoked")
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await environment.stripe.set_key(key, "valid")


async def delete_customer(environment: Environment, fault: Fault) -> None:
    """Delete a user's customer; only users have an address.

    An organisation's subscription would end with its customer, and the check knows no other plan.
    """
    stack = environment.stack
    headers = {"Authorization": f"Bearer {stack.stripe_key}"}
    url = f"{stack.emulator.url}/v1/customers"
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        async with session.get(url) as found:
            customers = [each for each in (await found.json())["data"] if each["email"]]
        if customers:
            chosen = customers[fault.draw % len(customers)]["id"]
            async with session.delete(f"{url}/{chosen}"):
                return


async def shift_clock(environment: Environment, fault: Fault) -> None:
    """Shift Stripe's clock, forward or back, and restore it after a while."""
    seconds = fault.draw % (2 * MAX_SKEW_SECONDS + 1) - MAX_SKEW_SECONDS
    before = await _calls(environment)
    await environment.stripe.advance_clock(seconds)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await environment.stripe.advance_clock(-seconds)
    environment.observed["calls while Stripe's clock was shifted"] += (
        await _calls(environment) - before
    )


async def _calls(environment: Environment) -> int:
    return sum(each["attempts"] for each in (await environment.stripe.attempts()).values())
