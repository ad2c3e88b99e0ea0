"""Harm to a road between two parts: cut, held up, closed, silent, slow, or mute to newcomers."""

import asyncio
from typing import Final

from metering_chaos.arena import Arena
from metering_chaos.plan import Fault

SLOWEST: Final = 2_000
FASTEST: Final = 20_000
"""Bytes a second, both."""


async def cut(arena: Arena, fault: Fault) -> None:
    """Reset its connections."""
    arena.roads[fault.target].cut()


async def stall(arena: Arena, fault: Fault) -> None:
    """Let nothing pass for a while."""
    road = arena.roads[fault.target]
    road.hold()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        road.release()


async def close(arena: Arena, fault: Fault) -> None:
    """Refuse connections for a while."""
    road = arena.roads[fault.target]
    await road.close()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await road.open()


async def silence(arena: Arena, fault: Fault) -> None:
    """Let its connections stand and never say anything again."""
    arena.roads[fault.target].silence()


async def slow_down(arena: Arena, fault: Fault) -> None:
    """Let everything crawl for a while, so that senders have to wait."""
    road = arena.roads[fault.target]
    before = road.crawled
    road.bytes_per_second = SLOWEST + fault.draw % (FASTEST - SLOWEST)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        road.bytes_per_second = None
        arena.seen["bytes that crawled"] += road.crawled - before


async def ignore(arena: Arena, fault: Fault) -> None:
    """Reset its connections, and answer no attempt to connect for a while."""
    road = arena.roads[fault.target]
    await road.ignore()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await road.open()


async def mute(arena: Arena, fault: Fault) -> None:
    """Reset its connections, and for a while take new ones and never say anything to them."""
    road = arena.roads[fault.target]
    before = road.unanswered
    road.mute()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await road.open()
        arena.seen["handshakes without an answer"] += road.unanswered - before
