"""Carrying out the planned faults; each lasts as long as it says and is lifted by itself."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import asyncpg

from local_stack.catalogue import VHOST
from local_stack.errors import LocalStackError
from metering_chaos import operator_moves
from metering_chaos.arena import GRACE_SECONDS, NORMAL_WATERMARK, Arena, in_thread
from metering_chaos.plan import Fault, Kind
from metering_chaos.publisher import LoadPublisher

STOPPED_WITHIN: Final = GRACE_SECONDS + 12
"""Seconds: after the grace, subscriptions may take 8 to hand back, and connections a few to end."""

DUPLICATED: Final = 200

# What may befall the faults themselves while others rage.
_TROUBLE = (
    LocalStackError,
    OSError,
    TimeoutError,
    aiohttp.ClientError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


class Havoc:
    """Does the faults, those of one part in turn; ``done`` counts them by kind."""

    def __init__(self, arena: Arena, publisher: LoadPublisher) -> None:
        self._arena = arena
        self._publisher = publisher
        self.done: Counter[Kind] = Counter()
        self.failed: list[str] = []
        self._does: Mapping[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.KILL_SERVICE: self._kill_service,
            Kind.STOP_SERVICE: self._stop_service,
            Kind.FREEZE_SERVICE: self._freeze_service,
            Kind.KILL_BROKER: self._kill_broker,
            Kind.RESTART_BROKER: self._restart_broker,
            Kind.CLOSE_CONNECTIONS: self._close_connections,
            Kind.MEMORY_ALARM: self._memory_alarm,
            Kind.KILL_DATABASE: self._kill_database,
            Kind.RESTART_DATABASE: self._restart_database,
            Kind.LOCK_TABLE: self._lock_table,
            Kind.CUT_ROAD: self._cut_road,
            Kind.STALL_ROAD: self._stall_road,
            Kind.CLOSE_ROAD: self._close_road,
            Kind.SILENCE_ROAD: self._silence_road,
            Kind.STRIPE_ANSWER: self._stripe_answer,
            Kind.REVOKE_KEY: self._revoke_key,
            Kind.DELETE_CUSTOMER: self._delete_customer,
            Kind.DUPLICATES: self._duplicates,
            Kind.MOVE: self._move,
            Kind.WRONG_MOVE: self._wrong_move,
            Kind.PEEK: self._peek,
        }

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
                await self._does[fault.kind](fault)
            except _TROUBLE as error:
                what = f"fault {fault.number}: {fault} failed: {type(error).__name__}"
                self.failed.append(what)
                self._arena.say(what)
            else:
                self.done[fault.kind] += 1

    async def _kill_service(self, fault: Fault) -> None:
        service = self._arena.stack.services[fault.target]
        await in_thread(service.kill)
        await in_thread(service.launch)

    async def _stop_service(self, fault: Fault) -> None:
        service = self._arena.stack.services[fault.target]
        service.terminate()
        if not await in_thread(lambda: service.wait_for_exit(STOPPED_WITHIN)):
            self._arena.note(f"{fault.target} did not stop within {STOPPED_WITHIN:.0f} s")
            await in_thread(service.kill)
        await in_thread(service.launch)

    async def _freeze_service(self, fault: Fault) -> None:
        pid = self._arena.stack.services[fault.target].pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _kill_broker(self, _fault: Fault) -> None:
        await in_thread(self._arena.stack.broker.kill)
        await in_thread(self._arena.stack.broker.restart)

    async def _restart_broker(self, _fault: Fault) -> None:
        await in_thread(self._arena.stack.broker.restart)

    async def _close_connections(self, _fault: Fault) -> None:
        await self._arena.ctl("close_all_connections", "-p", VHOST, "--limit", "0", "chaos")

    async def _memory_alarm(self, fault: Fault) -> None:
        try:
            await self._arena.ctl("set_vm_memory_high_watermark", "0.0001")
            await asyncio.sleep(fault.seconds)
        finally:
            await self._arena.ctl("set_vm_memory_high_watermark", NORMAL_WATERMARK)

    async def _kill_database(self, _fault: Fault) -> None:
        await in_thread(self._arena.stack.postgres.kill)
        await in_thread(self._arena.stack.postgres.restart)

    async def _restart_database(self, _fault: Fault) -> None:
        await in_thread(self._arena.stack.postgres.restart)

    async def _lock_table(self, fault: Fault) -> None:
        service, table = fault.target.split()
        url = self._arena.stack.database_url(service, owner=True)
        connection = await asyncpg.connect(url, timeout=5)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(fault.seconds)
        finally:
            await connection.close(timeout=5)

    async def _cut_road(self, fault: Fault) -> None:
        self._arena.roads[fault.target].cut()

    async def _stall_road(self, fault: Fault) -> None:
        road = self._arena.roads[fault.target]
        road.hold()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            road.release()

    async def _close_road(self, fault: Fault) -> None:
        road = self._arena.roads[fault.target]
        await road.close()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await road.open()

    async def _silence_road(self, fault: Fault) -> None:
        self._arena.roads[fault.target].silence()

    async def _stripe_answer(self, fault: Fault) -> None:
        kind, when = fault.target.split()
        seconds = fault.seconds if kind == "latency" else 0.0
        times = 1 + fault.draw % (40 if kind in {"rate_limited", "lock_timeout"} else 12)
        await self._arena.stripe.add_fault(
            kind, when=when, seconds=seconds, times=times, method="POST"
        )

    async def _revoke_key(self, fault: Fault) -> None:
        stripe, key = self._arena.stripe, self._arena.stack.stripe_key
        await stripe.set_key(key, "revoked")
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await stripe.set_key(key, "valid")

    async def _delete_customer(self, fault: Fault) -> None:
        stack = self._arena.stack
        headers = {"Authorization": f"Bearer {stack.stripe_key}"}
        url = f"{stack.emulator.url}/v1/customers"
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
            async with session.get(url) as answer:
                found = (await answer.json())["data"]
            if found:
                chosen = found[fault.draw % len(found)]["id"]
                async with session.delete(f"{url}/{chosen}"):
                    return

    async def _duplicates(self, fault: Fault) -> None:
        self._publisher.again(fault.draw, DUPLICATED)

    async def _move(self, fault: Fault) -> None:
        await operator_moves.move(self._arena.stack, f"{fault.target}.dlq", fault.target)

    async def _wrong_move(self, fault: Fault) -> None:
        source, destination = fault.target.split(">")
        await operator_moves.move(self._arena.stack, f"{source}.dlq", destination)

    async def _peek(self, fault: Fault) -> None:
        for _ in range(5):
            await operator_moves.peek(self._arena.stack, f"{fault.target}.dlq", 10)


_OF_THE_BROKER: Final = frozenset(
    {
        Kind.KILL_BROKER,
        Kind.RESTART_BROKER,
        Kind.CLOSE_CONNECTIONS,
        Kind.MEMORY_ALARM,
        Kind.MOVE,
        Kind.WRONG_MOVE,
        Kind.PEEK,
    }
)
_OF_THE_DATABASE: Final = frozenset({Kind.KILL_DATABASE, Kind.RESTART_DATABASE, Kind.LOCK_TABLE})
_OF_STRIPE: Final = frozenset({Kind.REVOKE_KEY, Kind.DELETE_CUSTOMER})


def _part(fault: Fault) -> str:
    """Return what is harmed: two faults of one part would get in each other's way."""
    if fault.kind in _OF_THE_BROKER:
        return "broker"
    if fault.kind in _OF_THE_DATABASE:
        return "database"
    if fault.kind in _OF_STRIPE:
        return "stripe"
    return fault.target or fault.kind
