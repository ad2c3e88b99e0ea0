"""Carrying out the planned faults; each lasts as long as planned and is lifted at its end."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import aiormq

from local_stack.errors import LocalStackError
from metering_chaos import (
    broker_faults,
    database_faults,
    process_faults,
    proxy_faults,
    stripe_faults,
    transaction_faults,
)
from metering_chaos.environment import DATABASE_ERRORS, Environment
from metering_chaos.plan import Fault, Kind
from metering_chaos.publisher import LoadPublisher

DUPLICATES: Final = 200

# What a fault may raise while other faults last.
_ERRORS = (
    *DATABASE_ERRORS,
    LocalStackError,
    aiohttp.ClientError,
    aiormq.exceptions.AMQPError,
)

Action = Callable[[Environment, Fault], Awaitable[None]]

ACTIONS: Final[Mapping[Kind, Action]] = {
    Kind.KILL_SERVICE: process_faults.kill,
    Kind.STOP_SERVICE: process_faults.stop,
    Kind.FREEZE_SERVICE: process_faults.freeze,
    Kind.PRICE_MODEL: process_faults.price_model,
    Kind.OUTLAST_LEASES: process_faults.outlast_leases,
    Kind.KILL_BROKER: broker_faults.kill,
    Kind.RESTART_BROKER: broker_faults.restart,
    Kind.CLOSE_CONNECTIONS: broker_faults.close_connections,
    Kind.MEMORY_ALARM: broker_faults.raise_memory_alarm,
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
    Kind.RESET_PROXY: proxy_faults.reset,
    Kind.STALL_PROXY: proxy_faults.stall,
    Kind.CLOSE_PROXY: proxy_faults.close,
    Kind.BLACKHOLE_PROXY: proxy_faults.blackhole,
    Kind.SLOW_PROXY: proxy_faults.slow_down,
    Kind.SILENT_ADDRESS: proxy_faults.ignore_handshakes,
    Kind.SILENT_HANDSHAKE: proxy_faults.accept_without_answer,
    Kind.STRIPE_ANSWER: stripe_faults.answer,
    Kind.REVOKE_KEY: stripe_faults.revoke_key,
    Kind.DELETE_CUSTOMER: stripe_faults.delete_customer,
    Kind.STRIPE_CLOCK: stripe_faults.shift_clock,
}
"""Every kind but ``DUPLICATES``, which the publisher carries out."""


class FaultInjector:
    """Carries out faults, those of one part one after the other.

    Attributes:
        completed: How many faults were carried out, by kind.
        failed: The faults that could not be carried out, and why.
    """

    def __init__(self, environment: Environment, publisher: LoadPublisher) -> None:
        self._environment = environment
        self._publisher = publisher
        self.completed: Counter[Kind] = Counter()
        self.failed: list[str] = []

    async def run(self, plan: tuple[Fault, ...]) -> None:
        """Begin every fault at its time; returns when the last one is over."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(began + fault.at - clock())
                group.create_task(self._inject(fault, len(plan)))

    async def _inject(self, fault: Fault, of: int) -> None:
        async with self._environment.locks[fault.part]:
            self._environment.say(f"fault {fault.number}/{of}: {fault}")
            try:
                if fault.kind is Kind.DUPLICATES:
                    self._publisher.publish_again(fault.draw, DUPLICATES)
                else:
                    await ACTIONS[fault.kind](self._environment, fault)
            except _ERRORS as error:
                what = f"fault {fault.number}: {fault} failed: {type(error).__name__}"
                self.failed.append(what)
                self._environment.say(what)
            else:
                self.completed[fault.kind] += 1
