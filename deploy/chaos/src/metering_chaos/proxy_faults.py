"""Faults of the network between a process and a server, carried out by the proxy between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from metering_chaos.environment import Environment
from metering_chaos.plan import Fault
from metering_chaos.proxies import Proxy

SLOWEST: Final = 2_000
FASTEST: Final = 20_000
"""Bytes per second, both."""


async def reset(environment: Environment, fault: Fault) -> None:
    """Reset the connections."""
    environment.proxies[fault.target].reset()


async def blackhole(environment: Environment, fault: Fault) -> None:
    """Keep the connections open and never pass a byte on them again."""
    environment.proxies[fault.target].blackhole()


async def stall(environment: Environment, fault: Fault) -> None:
    """Let nothing pass for a while."""
    async with _reopened_later(environment, fault) as proxy:
        proxy.hold()


async def close(environment: Environment, fault: Fault) -> None:
    """Refuse connections for a while."""
    async with _reopened_later(environment, fault) as proxy:
        await proxy.close()


async def slow_down(environment: Environment, fault: Fault) -> None:
    """Limit the bandwidth for a while, so that senders have to wait."""
    async with _reopened_later(environment, fault) as proxy:
        proxy.bytes_per_second = SLOWEST + fault.draw % (FASTEST - SLOWEST)


async def ignore_handshakes(environment: Environment, fault: Fault) -> None:
    """Reset the connections, and answer no attempt to connect for a while."""
    async with _reopened_later(environment, fault) as proxy:
        await proxy.ignore_handshakes()


async def accept_without_answer(environment: Environment, fault: Fault) -> None:
    """Reset the connections, and for a while accept new ones and never send them a byte."""
    async with _reopened_later(environment, fault) as proxy:
        proxy.accept_without_answer()


@asynccontextmanager
async def _reopened_later(environment: Environment, fault: Fault) -> AsyncIterator[Proxy]:
    """Give the fault's proxy; what is done to it lasts as long as the fault."""
    proxy = environment.proxies[fault.target]
    slowed, unanswered = proxy.slowed_bytes, proxy.unanswered
    try:
        yield proxy
        await asyncio.sleep(fault.seconds)
    finally:
        await proxy.open()
        environment.observed["bytes slowed down"] += proxy.slowed_bytes - slowed
        environment.observed["connections without an answer"] += proxy.unanswered - unanswered
