"""The stack under test: its services reach broker, database and Stripe through proxies."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import asyncpg
from typing_extensions import override

from local_stack.catalogue import ServicePlan, StackOptions
from local_stack.directory_lock import DirectoryLock
from local_stack.ports import LOOPBACK
from local_stack.postgres import PostgresServer
from local_stack.programs import ProgramFailedError
from local_stack.rabbitmq import RabbitNode
from local_stack.stack import Stack
from local_stack.urls import Address, login_of
from metering_chaos.evidence import Organisation
from metering_chaos.management import read_queues
from metering_chaos.plan import PROXIES, Queues
from metering_chaos.plan_file import write_plans
from metering_chaos.proxies import Proxy, open_proxies
from stripe_emulator.client import EmulatorClient

T = TypeVar("T")
Say = Callable[[str], None]

GRACE_SECONDS: Final = 5.0
NORMAL_WATERMARK: Final = "0.4"
CTL_ATTEMPTS: Final = 3
FULL_DISK_MB: Final = 1
SUMMARY_LAG: Final = {"STRIPE_SUMMARY_LAG_SECONDS": "30"}
DATABASE_ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass(frozen=True, slots=True)
class ProxiedOptions(StackOptions):
    """Options of a stack with proxies, by names such as ``usage-ingest>broker`` and ``stripe``."""

    proxies: Mapping[str, Proxy] = field(default_factory=dict)


class ProxiedStack(Stack):
    """A stack whose services get the proxies' addresses instead of the servers' own.

    The URLs of the databases' owners and of the broker's other users name the servers themselves.
    """

    def __init__(
        self,
        directory: Path,
        options: StackOptions,
        lock: DirectoryLock,
        postgres: PostgresServer,
        broker: RabbitNode,
    ) -> None:
        self._proxies = options.proxies if isinstance(options, ProxiedOptions) else {}
        self._set_upstream("broker", broker.amqp)
        self._set_upstream("database", postgres.address)
        super().__init__(directory, options, lock, postgres, broker)
        self._set_upstream("stripe", Address.of(self.emulator.url))

    def _set_upstream(self, server: str, address: Address) -> None:
        for name, proxy in self._proxies.items():
            if _server(name) == server:
                proxy.upstream = address

    @property
    @override
    def emulator_url(self) -> str:
        """The base URL by which the services reach Stripe."""
        return self._proxies["stripe"].address.http_url

    @override
    def amqp_url(self, user: str) -> str:
        """Build the AMQP URL of a broker's user, through its proxy if it has one."""
        return self._proxied(f"{user}>broker", super().amqp_url(user))

    @override
    def addresses_of(self, process: str, plan: ServicePlan) -> dict[str, str]:
        """Build the settings that name broker and database to a process, through its proxies."""
        return {
            "AMQP_URL": self._proxied(f"{process}>broker", super().amqp_url(plan.name)),
            "DATABASE_URL": self._proxied(f"{process}>database", super().database_url(plan.name)),
        }

    def _proxied(self, route: str, url: str) -> str:
        """Put the proxies of a route in place of the URL's host; several become a list of hosts."""
        proxies = [proxy for name, proxy in self._proxies.items() if _route(name) == route]
        if not proxies:
            return url
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        hosts = ",".join(f"{LOOPBACK}:{proxy.port}" for proxy in proxies)
        return parts._replace(netloc=f"{login}@{hosts}").geturl()


@dataclass
class Environment:
    """The running stack and the means to cause faults in it.

    Attributes:
        stack: The stack.
        plans_file: Its file of plans.
        queues: The broker's queues.
        proxies: The proxies by name.
        stripe: A client of the local Stripe's inspection API.
        say: Called with a line of text.
        locks: By part: two faults of one part are carried out one after the other.
        unexpected: What happened and no fault explains.
        observed: Counts of effects that show that a fault took effect.
        organisations: Who pays for users that are not on their own.
    """

    stack: ProxiedStack
    plans_file: Path
    queues: Queues
    proxies: Mapping[str, Proxy]
    stripe: EmulatorClient
    say: Say
    locks: Mapping[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    unexpected: list[str] = field(default_factory=list)
    observed: Counter[str] = field(default_factory=Counter)
    organisations: tuple[Organisation, ...] = ()

    def ports(self, process: str, server: str) -> frozenset[int]:
        """Return the client ports that ``broker`` or ``database`` sees of a process."""
        route = f"{process}>{server}"
        proxies = (proxy for name, proxy in self.proxies.items() if _route(name) == route)
        return frozenset(port for proxy in proxies for port in proxy.upstream_ports)

    def passed_bytes(self) -> Counter[str]:
        """Count what has passed the proxies, by route."""
        passed = Counter({_route(name): 0 for name in self.proxies})
        for name, proxy in self.proxies.items():
            passed[_route(name)] += proxy.passed_bytes
        return passed

    @asynccontextmanager
    async def database(
        self, service: str, *, superuser: bool = False
    ) -> AsyncIterator[asyncpg.Connection]:
        """Open a session in a service's database as its owner, or as the superuser.

        Raises one of ``DATABASE_ERRORS`` while the database has a fault.
        """
        url = self.stack.database_url(service, owner=True)
        if superuser:
            postgres, admin = self.stack.postgres, login_of(self.stack.postgres.superuser_url)
            url = postgres.url(role_of(service), admin.user, admin.password)
        session = await asyncpg.connect(url, timeout=5)
        try:
            yield session
        finally:
            await session.close(timeout=5)

    def note_unexpected(self, what: str) -> None:
        """Keep something unexpected for the end of the run, and say it."""
        self.unexpected.append(what)
        self.say(f"unexpected: {what}")

    async def ctl(self, *arguments: str) -> None:
        """Run ``rabbitmqctl``; a node that has just started may refuse it once or twice.

        Raises:
            ProgramFailedError: it was refused each time.
        """
        for attempt in range(1, CTL_ATTEMPTS + 1):
            try:
                await in_thread(lambda: self.stack.broker.ctl(*arguments))
            except ProgramFailedError:
                if attempt == CTL_ATTEMPTS:
                    raise
                await asyncio.sleep(1)
            else:
                return

    async def lift_faults(self) -> None:
        """End every fault that may still last, and start what does not run.

        Raises:
            ProgramFailedError: the broker's memory alarm or the full disk could not be lifted, or
                the topology not be applied.
        """
        await self.ctl("set_vm_memory_high_watermark", NORMAL_WATERMARK)
        await in_thread(lambda: self.stack.postgres.limit_files(None))
        await in_thread(self.stack.apply_topology)
        await self.stripe.remove_faults()
        await self.stripe.set_key(self.stack.stripe_key, "valid")
        for proxy in self.proxies.values():
            await proxy.open()
        for name, service in self.stack.services.items():
            if not service.alive:
                self.note_unexpected(f"{name} had ended by itself")
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
async def open_environment(
    directory: Path, say: Say, *, processes: int = 1
) -> AsyncIterator[Environment]:
    """Start the stack with proxies; everything is stopped at the end.

    Args:
        directory: Where the servers keep their data and logs.
        say: Called with a line of text after each step.
        processes: How many processes of each service there are: one or two.
    """
    async with open_proxies(PROXIES) as proxies:
        plans_file = write_plans(directory)
        options = _options(proxies, processes, plans_file)
        starting = asyncio.ensure_future(
            asyncio.to_thread(lambda: ProxiedStack.start(directory, options, say))
        )
        try:
            stack = await asyncio.shield(starting)
            queues = await in_thread(lambda: read_queues(stack))
            async with EmulatorClient(stack.emulator.url) as stripe:
                yield Environment(stack, plans_file, queues, proxies, stripe, say)
        finally:
            await asyncio.wait({starting})
            if starting.exception() is None:
                await in_thread(starting.result().stop)


def role_of(service: str) -> str:
    """Return the name of a service's role, which is also that of its database."""
    return service.replace("-", "_")


def _route(proxy: str) -> str:
    """Return what a proxy connects, such as ``usage-ingest 2>broker``; two may share a route."""
    return proxy.partition(",")[0]


def _server(proxy: str) -> str:
    """Return the server behind a proxy: ``broker``, ``database`` or ``stripe``."""
    return _route(proxy).rpartition(">")[2]


def _options(proxies: Mapping[str, Proxy], processes: int, plans_file: Path) -> ProxiedOptions:
    return ProxiedOptions(
        # A wait of an hour becomes one of 18 s.
        tier_scale=0.005,
        max_calls_per_second=200,
        grace_seconds=GRACE_SECONDS,
        service_environment={
            "usage-ingest": {"REPORT_WINDOW_SECONDS": "2", **SUMMARY_LAG},
            "stripe-reporter": {"STRIPE_READS_PER_SECOND": "50", **SUMMARY_LAG},
        },
        processes=processes,
        # The full disk allows no longer file than these, so that the write-ahead log goes on.
        wal_segment_mb=FULL_DISK_MB,
        plans_file=plans_file,
        proxies=proxies,
    )
