"""customer-provisioner with a real broker, a real database and the local Stripe."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.following import Follower
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Profile
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.statements import KeepResult
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls
from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from nexus_contracts import Event, UserCreated, UserCreatedV2, UserUpdated
from nexus_contracts.user_created import newest
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.publisher import Publisher
from stripe_emulator.account import StripeAccount
from stripe_emulator.faults import Fault
from stripe_emulator.running import DEFAULT_KEY, RunningEmulator, running_emulator
from support.leak_check import leaks, outputs_of, secrets_in, tap
from support.vhost import Vhost
from support.waiting import eventually

API_KEY = "API key of the tests"
API_KEYS = f"hub:{sha256(API_KEY.encode()).hexdigest()}:hub:user.created"

AnyUser = TypeVar("AnyUser", UserCreated, UserCreatedV2, UserUpdated)

Clone = Callable[[str], Awaitable[str]]
Spawn = Callable[[dict[str, str]], ServerProcess]


def user(email: str | None = None, *, name: str | None = None) -> UserCreated:
    """Return a new user."""
    user_id = uuid4()
    return UserCreated(user_id=user_id, email=email or f"{user_id}@example.com", name=name)


def created(data: AnyUser) -> Event[AnyUser]:
    """Return the event of a user, of now."""
    return Event.of(data, source="test/app", id=uuid4(), time=datetime.now(UTC))


async def profile_of(database: Database, data: UserCreated | UserCreatedV2) -> Profile:
    """Return the stored profile of a user."""
    profile = await ProfileReader(database).find(data.user_id)
    assert profile is not None
    return profile


async def steps_of(database: Database, data: UserCreated | UserCreatedV2) -> list[str]:
    """Return the steps taken for a user."""
    return [entry.step for entry in await ProfileReader(database).history(data.user_id)]


class Clock:
    """A running clock that a test can set forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        """Return the time."""
        return utc_now() + self.ahead


@dataclass(frozen=True)
class Stripe:
    """The local Stripe, which runs in this process."""

    url: str
    account: StripeAccount

    def customers(self, user_id: UUID) -> list[dict[str, Any]]:
        """Return the customers that are marked with a user and not deleted."""
        customers = self.account.customers.as_of(self.account.clock.now())
        return [each for each in customers if each["metadata"].get("user_id") == str(user_id)]

    def delete(self, customer_id: str) -> None:
        """Delete a customer, as in Stripe's dashboard."""
        self.account.customers.delete(customer_id, self.account.clock.now())

    def inject(self, kind: str, **conditions: Any) -> None:
        """Inject a fault, by default into the next creation."""
        described = {"method": "POST", "path_prefix": "/v1/customers", **conditions}
        self.account.faults.add(Fault.read({"kind": kind, **described}))

    def requests(self, method: str, path: str = "/v1/customers") -> list[dict[str, Any]]:
        """Return the requests with a method and a path, the oldest first."""
        journal = self.account.request_log.requests(10_000)
        return [each for each in journal if (each["method"], each["path"]) == (method, path)]

    async def wait_for(self, method: str, least: int = 1) -> list[dict[str, Any]]:
        """Wait until so many requests with a method have begun, and return them."""

        async def begun() -> list[dict[str, Any]]:
            return self.requests(method)

        return await eventually(begun, lambda requests: len(requests) >= least)

    def set_options(self, **changes: float) -> None:
        """Change how the local Stripe behaves."""
        self.account.options = self.account.options.changed(changes)


@dataclass(frozen=True)
class Bench:
    """The service's parts on a real database and the local Stripe, with a clock to set."""

    profiles: ProfileWriter
    provisioner: Provisioner
    changes: ChangeStore
    follower: Follower
    metrics: Metrics
    registry: CollectorRegistry
    stripe: Stripe
    clock: Clock

    async def keep(self, data: UserCreated | UserCreatedV2) -> KeepResult:
        """Store a user, as the handler of its event does."""
        return await self.profiles.keep(newest(data), self.clock())

    def advance(self, **time: float) -> None:
        """Set both clocks forward, the service's and Stripe's."""
        self.clock.ahead += timedelta(**time)
        self.stripe.account.clock.advance(timedelta(**time).total_seconds())


@pytest.fixture
async def stripe() -> AsyncIterator[Stripe]:
    """Return a fresh local Stripe."""
    async with running_emulator() as emulator:
        yield _stripe(emulator)


def _stripe(emulator: RunningEmulator) -> Stripe:
    return Stripe(emulator.url, emulator.account)


@pytest.fixture
async def database_url(clone: Clone) -> str:
    """Return the URL of a migrated, empty database, as the service's role."""
    return await clone("customer_provisioner")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Return the database of the test."""
    fresh = Database(database_url, name="test")
    yield fresh
    await fresh.close()


@pytest.fixture
async def bench(database: Database, stripe: Stripe) -> AsyncIterator[Bench]:
    """Return the parts, joined as in the service."""
    clock, registry = Clock(), CollectorRegistry()
    metrics = Metrics(registry)
    calls = StripeCalls(DEFAULT_KEY, stripe.url, metrics)
    api = StripeApi(calls)
    profiles = ProfileWriter(database)
    provisioner = Provisioner(profiles, api, metrics, wake_relay=_nothing, now=clock)
    changes = ChangeStore(database)
    follower = Follower(changes, api, metrics, now=clock)
    yield Bench(profiles, provisioner, changes, follower, metrics, registry, stripe, clock)
    await calls.close()


def _nothing() -> None:
    """Do nothing."""


@pytest.fixture
async def publisher(vhost: Vhost) -> AsyncIterator[Publisher]:
    """Return the service's connection to the broker."""
    connected = await Publisher.connect(vhost.url("customer-provisioner"), name="test")
    yield connected
    await connected.close()


@pytest.fixture
def environment(vhost: Vhost, database_url: str, stripe: Stripe) -> dict[str, str]:
    """Return the service's environment."""
    (port,) = free_ports(None)
    return {
        **base_environment(),
        "AMQP_URL": vhost.url("customer-provisioner"),
        "DATABASE_URL": database_url,
        "STRIPE_SECRET_KEY": DEFAULT_KEY,
        "STRIPE_API_BASE": stripe.url,
        "API_KEYS": API_KEYS,
        "HTTP_HOST": LOOPBACK,
        "HTTP_PORT": str(port),
    }


@pytest.fixture
async def spawn(
    tmp_path: Path, vhost: Vhost, environment: dict[str, str]
) -> AsyncIterator[Callable[[dict[str, str]], ServerProcess]]:
    """Return a function that prepares a service process; all of them stop after the test.

    The test fails at its end if a log, an answer or a dead letter has a secret or an address.
    """
    processes: list[ServerProcess] = []
    await tap(vhost.admin_url)

    def prepare(environment: dict[str, str]) -> ServerProcess:
        process = ServerProcess(
            "customer-provisioner",
            [sys.executable, "-m", "customer_provisioner", "serve"],
            url=f"http://{LOOPBACK}:{environment['HTTP_PORT']}",
            ready_path="/readyz",
            log=tmp_path / f"service{len(processes)}.log",
            env=environment,
            grace=20.0,
            on_start=_nothing,
        )
        processes.append(process)
        return process

    yield prepare
    outputs = await outputs_of(processes, vhost.admin_url)
    assert leaks(outputs, vhost.personal | secrets_in(environment) | {API_KEY}) == []


@pytest.fixture
def service(
    spawn: Callable[[dict[str, str]], ServerProcess], environment: dict[str, str]
) -> ServerProcess:
    """Return the service, not started yet."""
    return spawn(environment)


async def start(service: ServerProcess) -> None:
    """Start a service. This process serves the local Stripe meanwhile."""
    service.launch()
    await asyncio.to_thread(service.await_ready)
