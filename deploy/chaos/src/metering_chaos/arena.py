"""The stack under test: its services reach broker, database and Stripe by roads that can be cut."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from local_stack.catalogue import ServicePlan, StackOptions
from local_stack.claims import Claim
from local_stack.ports import LOOPBACK
from local_stack.postgres import PostgresServer
from local_stack.programs import ProgramFailedError
from local_stack.rabbitmq import RabbitNode
from local_stack.stack import Stack
from local_stack.urls import Address
from metering_chaos.plan import ROADS
from metering_chaos.roads import Road, open_roads
from stripe_emulator.client import EmulatorClient

T = TypeVar("T")
Say = Callable[[str], None]

GRACE_SECONDS: Final = 5.0
NORMAL_WATERMARK: Final = "0.4"
CTL_TRIES: Final = 3
FULL_DISK_MB: Final = 1


@dataclass(frozen=True, slots=True)
class RoadedOptions(StackOptions):
    """Options of a stack with roads: by name, such as ``usage-ingest>broker`` and ``stripe``."""

    roads: Mapping[str, Road] = field(default_factory=dict)


class RoadedStack(Stack):
    """A stack whose services are told the roads' addresses instead of the servers' own.

    Its owner's database URLs and the broker's other users lead straight there.
    """

    def __init__(
        self,
        directory: Path,
        options: StackOptions,
        claim: Claim,
        postgres: PostgresServer,
        broker: RabbitNode,
    ) -> None:
        self._roads = options.roads if isinstance(options, RoadedOptions) else {}
        self._lead("broker", Address(LOOPBACK, broker.ports.amqp))
        self._lead("database", Address(LOOPBACK, postgres.port))
        super().__init__(directory, options, claim, postgres, broker)
        self._lead("stripe", Address.of(self.emulator.url))

    def _lead(self, part: str, to: Address) -> None:
        for name, road in self._roads.items():
            if _part(name) == part:
                road.leads_to = to

    @property
    def emulator_url(self) -> str:
        """Where the services find Stripe."""
        return self._roads["stripe"].address.http_url

    def amqp_url(self, user: str) -> str:
        """Build the AMQP URL of a broker's user, by its road if it has one."""
        return self._by_road(f"{user}>broker", super().amqp_url(user))

    def addresses_of(self, process: str, plan: ServicePlan) -> dict[str, str]:
        """Build what tells a process where broker and database are: on roads of its own."""
        return {
            "AMQP_URL": self._by_road(f"{process}>broker", super().amqp_url(plan.name)),
            "DATABASE_URL": self._by_road(f"{process}>database", super().database_url(plan.name)),
        }

    def _by_road(self, way: str, url: str) -> str:
        """Put the roads of a way in place of the URL's own host; several are a list of hosts."""
        roads = [road for name, road in self._roads.items() if _way(name) == way]
        if not roads:
            return url
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        hosts = ",".join(f"{road.address.host}:{road.port}" for road in roads)
        return parts._replace(netloc=f"{login}@{hosts}").geturl()


@dataclass
class Arena:
    """The running stack and the means to harm it.

    ``locks`` keep what harms the same part in turn; ``notes`` are oddities no fault explains;
    ``seen`` counts what shows that a fault was one, such as writes that a full disk refused.
    """

    stack: RoadedStack
    roads: Mapping[str, Road]
    stripe: EmulatorClient
    say: Say
    locks: Mapping[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    notes: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def ports(self, process: str, part: str) -> frozenset[int]:
        """Return the ports by which ``broker`` or ``database`` knows a process's connections."""
        roads = (road for name, road in self.roads.items() if _way(name) == f"{process}>{part}")
        return frozenset(port for road in roads for port in road.ports_there)

    def note(self, what: str) -> None:
        """Keep an oddity for the end, and say it."""
        self.notes.append(what)
        self.say(f"odd: {what}")

    async def ctl(self, *arguments: str) -> None:
        """Run ``rabbitmqctl``; a node that has only just started may refuse it once or twice.

        Raises:
            ProgramFailedError: it was refused each time.
        """
        for _ in range(CTL_TRIES - 1):
            try:
                await in_thread(lambda: self.stack.broker.ctl(*arguments))
            except ProgramFailedError:
                await asyncio.sleep(1)
            else:
                return
        await in_thread(lambda: self.stack.broker.ctl(*arguments))

    async def lift(self) -> None:
        """End every fault that may still last, and start what does not run.

        Raises:
            ProgramFailedError: the broker's memory alarm could not be ended, the disk not be
                emptied, or the broker not be brought back to its topology.
        """
        await self.ctl("set_vm_memory_high_watermark", NORMAL_WATERMARK)
        await in_thread(lambda: self.stack.postgres.limit_files(None))
        await in_thread(self.stack.apply_topology)
        await self.stripe.remove_faults()
        await self.stripe.set_key(self.stack.stripe_key, "valid")
        for road in self.roads.values():
            await road.open()
        for name, service in self.stack.services.items():
            if not service.alive:
                self.note(f"{name} had ended by itself")
                await in_thread(service.launch)


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking ``work`` beside the loop, to its end even if this task is cancelled meanwhile.

    What starts and stops processes must not go on after the stack has been stopped.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@asynccontextmanager
async def open_arena(directory: Path, say: Say, *, processes: int = 1) -> AsyncIterator[Arena]:
    """Start the stack with roads in between; everything is stopped at the end.

    There are so many ``processes`` of each service, one or two.
    """
    async with open_roads(ROADS) as roads:
        starting = asyncio.ensure_future(
            asyncio.to_thread(lambda: RoadedStack.start(directory, _options(roads, processes), say))
        )
        try:
            stack = await asyncio.shield(starting)
            async with EmulatorClient(stack.emulator.url) as stripe:
                yield Arena(stack, roads, stripe, say)
        finally:
            await asyncio.wait({starting})
            if starting.exception() is None:
                await in_thread(starting.result().stop)


def _way(road: str) -> str:
    """Return between whom a road is, such as ``usage-ingest 2>broker``; it may have another."""
    return road.partition(",")[0]


def _part(road: str) -> str:
    """Return where a road leads to: ``broker``, ``database`` or ``stripe``."""
    return _way(road).rpartition(">")[2]


def _options(roads: Mapping[str, Road], processes: int) -> RoadedOptions:
    return RoadedOptions(
        # 5 s, 1 min, 10 min and 1 h become 50 ms, 0.3 s, 3 s and 18 s.
        tier_scale=0.005,
        max_calls_per_second=200,
        grace_seconds=GRACE_SECONDS,
        service_environment={"usage-ingest": {"REPORT_WINDOW_SECONDS": "2"}},
        processes=processes,
        # A full disk is one that takes no longer file than these: the log goes on.
        wal_segment_mb=FULL_DISK_MB,
        roads=roads,
    )
