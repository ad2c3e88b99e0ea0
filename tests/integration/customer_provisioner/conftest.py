"""customer-provisioner between a real broker, a real database and the local Stripe."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Profile
from customer_provisioner.profiles import Profiles
from customer_provisioner.provisioning import Provisioning
from customer_provisioner.stripe_api import StripeApi
from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from nexus_contracts import Event, UserCreated
from nexus_database import Database
from nexus_messaging.clock import utc_now
from rig.secrecy import leaks, secrets_in, tap, told_by
from rig.vhost import Vhost
from rig.waiting import eventually
from stripe_emulator.account import Account
from stripe_emulator.faults import Fault
from stripe_emulator.running import DEFAULT_KEY, RunningEmulator, running_emulator

DOOR_KEY = "door key of the tests"
DOOR_KEYS = f"hub:{sha256(DOOR_KEY.encode()).hexdigest()}:hub:user.created"

Clone = Callable[[str], Awaitable[str]]
Spawn = Callable[[dict[str, str]], ServerProcess]


def user(email: str | None = None, *, name: str | None = None) -> UserCreated:
    """Return a new user."""
    user_id = uuid4()
    return UserCreated(user_id=user_id, email=email or f"{user_id}@example.com", name=name)


def created(data: UserCreated) -> Event[UserCreated]:
    """Return the event that tells of a user."""
    return Event.of(data, source="test/app", id=uuid4(), time=datetime.now(UTC))


async def profile_of(database: Database, data: UserCreated) -> Profile:
    """Return the kept profile of a user."""
    profile = await Inquiries(database).find(data.user_id)
    assert profile is not None
    return profile


async def steps_of(database: Database, data: UserCreated) -> list[str]:
    """Return the steps taken for a user."""
    return [taken.step for taken in await Inquiries(database).history(data.user_id)]


class Clock:
    """A clock that runs, and that a test can set forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        """Return the time."""
        return utc_now() + self.ahead


@dataclass(frozen=True)
class Stripe:
    """The local Stripe, looked into from this very process."""

    url: str
    account: Account

    def customers(self, user_id: UUID) -> list[dict[str, Any]]:
        """Return the customers that are marked with a user and not deleted."""
        everyone = self.account.customers.as_of(self.account.clock.now())
        return [each for each in everyone if each["metadata"].get("user_id") == str(user_id)]

    def delete(self, customer_id: str) -> None:
        """Delete a customer, as somebody does in Stripe's dashboard."""
        self.account.customers.delete(customer_id, self.account.clock.now())

    def befall(self, kind: str, **conditions: Any) -> None:
        """Arm a fault; by default it befalls the next creation."""
        described = {"method": "POST", "path_prefix": "/v1/customers", **conditions}
        self.account.faults.add(Fault.read({"kind": kind, **described}))

    def requests(self, method: str, path: str = "/v1/customers") -> list[dict[str, Any]]:
        """Return the requests of one kind, the oldest first."""
        journal = self.account.journal.requests(10_000)
        return [each for each in journal if (each["method"], each["path"]) == (method, path)]

    async def asked(self, method: str, least: int = 1) -> list[dict[str, Any]]:
        """Wait for so many requests of one kind to have begun, and return them."""

        async def begun() -> list[dict[str, Any]]:
            return self.requests(method)

        return await eventually(begun, lambda requests: len(requests) >= least)

    def set_options(self, **changes: float) -> None:
        """Change how the local Stripe behaves."""
        self.account.options = self.account.options.changed(changes)


@dataclass(frozen=True)
class Bench:
    """The service's inner parts on a real database and the local Stripe, with a clock to set."""

    profiles: Profiles
    provisioning: Provisioning
    stripe: Stripe
    clock: Clock

    async def keep(self, data: UserCreated) -> None:
        """Keep a user as its event does."""
        await self.profiles.keep(data, self.clock())

    def advance(self, **time: float) -> None:
        """Let time pass, here and at Stripe."""
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
    """Return the inner parts, put together as the service does."""
    clock, metrics = Clock(), Metrics(CollectorRegistry())
    api = StripeApi(DEFAULT_KEY, stripe.url, metrics)
    profiles = Profiles(database)
    provisioning = Provisioning(profiles, api, metrics, on_provisioned=_nothing, now=clock)
    yield Bench(profiles, provisioning, stripe, clock)
    await api.close()


def _nothing() -> None:
    """Wake nobody."""


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
        "API_KEYS": DOOR_KEYS,
        "HTTP_HOST": LOOPBACK,
        "HTTP_PORT": str(port),
    }


@pytest.fixture
async def spawn(
    tmp_path: Path, vhost: Vhost, environment: dict[str, str]
) -> AsyncIterator[Callable[[dict[str, str]], ServerProcess]]:
    """Return a function that prepares a service process; all of them stop after the test.

    The test fails at its end if anything they told people holds a secret or an address.
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
    told = await told_by(processes, vhost.admin_url)
    assert leaks(told, vhost.personal | secrets_in(environment) | {DOOR_KEY}) == []


@pytest.fixture
def service(
    spawn: Callable[[dict[str, str]], ServerProcess], environment: dict[str, str]
) -> ServerProcess:
    """Return the service, not started yet."""
    return spawn(environment)


async def start(service: ServerProcess) -> None:
    """Start a service while this process goes on serving the local Stripe."""
    service.launch()
    await asyncio.to_thread(service.await_ready)
