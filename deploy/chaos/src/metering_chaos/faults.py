"""Carrying out the planned faults; each lasts as long as it says and is lifted by itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import aiormq
import asyncpg

from local_stack.errors import LocalStackError
from metering_chaos import (
    broker_faults,
    database_faults,
    process_faults,
    road_faults,
    stripe_faults,
    transaction_faults,
)
from metering_chaos.arena import Arena
from metering_chaos.plan import Fault, Kind
from metering_chaos.publisher import LoadPublisher

DUPLICATED: Final = 200

# What may befall the faults themselves while others rage.
_TROUBLE = (
    LocalStackError,
    OSError,
    TimeoutError,
    aiohttp.ClientError,
    aiormq.exceptions.AMQPError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)

Does = Callable[[Arena, Fault], Awaitable[None]]

DOES: Final[Mapping[Kind, Does]] = {
    Kind.KILL_SERVICE: process_faults.kill,
    Kind.STOP_SERVICE: process_faults.stop,
    Kind.FREEZE_SERVICE: process_faults.freeze,
    Kind.OVERSLEEP: process_faults.oversleep,
    Kind.KILL_BROKER: broker_faults.kill,
    Kind.RESTART_BROKER: broker_faults.restart,
    Kind.CLOSE_CONNECTIONS: broker_faults.close_connections,
    Kind.MEMORY_ALARM: broker_faults.alarm,
    Kind.APPLY_TOPOLOGY: broker_faults.apply_topology,
    Kind.CHANGE_POLICY: broker_faults.change_policy,
    Kind.DISPLACE_POLICY: broker_faults.displace_policy,
    Kind.MOVE: broker_faults.move,
    Kind.WRONG_MOVE: broker_faults.move_wrongly,
    Kind.PEEK: broker_faults.peek,
    Kind.KILL_DATABASE: database_faults.kill,
    Kind.RESTART_DATABASE: database_faults.restart,
    Kind.LOCK_TABLE: database_faults.lock_table,
    Kind.FREEZE_IN_TRANSACTION: transaction_faults.freeze,
    Kind.END_SESSIONS: database_faults.end_sessions,
    Kind.REACH_STANDBY: database_faults.reach_standby,
    Kind.FILL_DISK: database_faults.fill_disk,
    Kind.CUT_ROAD: road_faults.cut,
    Kind.STALL_ROAD: road_faults.stall,
    Kind.CLOSE_ROAD: road_faults.close,
    Kind.SILENCE_ROAD: road_faults.silence,
    Kind.SLOW_ROAD: road_faults.slow_down,
    Kind.SILENT_ADDRESS: road_faults.ignore,
    Kind.SILENT_HANDSHAKE: road_faults.mute,
    Kind.STRIPE_ANSWER: stripe_faults.answer,
    Kind.REVOKE_KEY: stripe_faults.revoke_key,
    Kind.DELETE_CUSTOMER: stripe_faults.delete_customer,
    Kind.STRIPE_CLOCK: stripe_faults.shift_clock,
}


class Havoc:
    """Does the faults, those of one part in turn; ``done`` counts them by kind."""

    def __init__(self, arena: Arena, publisher: LoadPublisher) -> None:
        self._arena = arena
        self._publisher = publisher
        self.done: Counter[Kind] = Counter()
        self.failed: list[str] = []

    async def run(self, plan: tuple[Fault, ...]) -> None:
        """Do every fault at its time; returns when the last one is over."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(began + fault.at - asyncio.get_running_loop().time())
                group.create_task(self._do(fault, len(plan)))

    async def _do(self, fault: Fault, of: int) -> None:
        async with self._arena.locks[_part(fault)]:
            self._arena.say(f"fault {fault.number}/{of}: {fault}")
            try:
                if fault.kind is Kind.DUPLICATES:
                    self._publisher.again(fault.draw, DUPLICATED)
                else:
                    await DOES[fault.kind](self._arena, fault)
            except _TROUBLE as error:
                what = f"fault {fault.number}: {fault} failed: {type(error).__name__}"
                self.failed.append(what)
                self._arena.say(what)
            else:
                self.done[fault.kind] += 1


_OF_THE_BROKER: Final = frozenset(
    {
        Kind.KILL_BROKER,
        Kind.RESTART_BROKER,
        Kind.CLOSE_CONNECTIONS,
        Kind.MEMORY_ALARM,
        Kind.APPLY_TOPOLOGY,
        Kind.CHANGE_POLICY,
        Kind.DISPLACE_POLICY,
        Kind.MOVE,
        Kind.WRONG_MOVE,
        Kind.PEEK,
    }
)
_OF_THE_DATABASE: Final = frozenset(
    {
        Kind.KILL_DATABASE,
        Kind.RESTART_DATABASE,
        Kind.LOCK_TABLE,
        Kind.FREEZE_IN_TRANSACTION,
        Kind.END_SESSIONS,
        Kind.REACH_STANDBY,
        Kind.FILL_DISK,
    }
)
_OF_STRIPE: Final = frozenset({Kind.REVOKE_KEY, Kind.DELETE_CUSTOMER, Kind.STRIPE_CLOCK})


def _part(fault: Fault) -> str:
    """Return what is harmed: two faults of one part would get in each other's way."""
    if fault.kind in _OF_THE_BROKER:
        return "broker"
    if fault.kind in _OF_THE_DATABASE:
        return "database"
    if fault.kind in _OF_STRIPE:
        return "stripe"
    return fault.target or fault.kind
