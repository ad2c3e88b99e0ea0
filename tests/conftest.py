"""The real broker and the real database of a test run: one of each, started once.

Each test gets a vhost of its own with the whole topology applied, and databases cloned from a
migrated template.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from local_stack.processes import exit_on_sigterm
from local_stack.provision import provide_broker, provide_postgres
from local_stack.runs import run_directory
from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import migrate
from rig.platform import Platform
from rig.secrecy import tap
from rig.vhost import Vhost

SERVICES = ("customer_provisioner", "usage_ingest", "stripe_reporter")
PASSWORD = secrets.token_hex(16)
TIER_SCALE = 0.01


@pytest.fixture(scope="session")
def password() -> str:
    """Return the password of every role and broker user of this run.

    One for all: they belong to the whole server, and whoever sets another locks the others out.
    """
    return PASSWORD


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Return a place for this run's servers."""
    with run_directory(Path(__file__).parent.parent / ".local" / "tests") as directory:
        yield directory


@pytest.fixture(scope="session")
def broker(server_directory: Path) -> Iterator[Broker]:
    """Return a running RabbitMQ."""
    with exit_on_sigterm(), provide_broker(server_directory / "rabbitmq") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[PostgresServer]:
    """Return a running PostgreSQL with every service's roles."""
    with exit_on_sigterm(), provide_postgres(server_directory / "postgres") as server:
        for service in SERVICES:
            for role in (f"{service}_owner", service):
                run_sql(server.superuser_url, f"DROP ROLE IF EXISTS {role}")
                run_sql(server.superuser_url, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        yield server


@pytest.fixture
async def vhost(broker: Broker) -> AsyncIterator[Vhost]:
    """Return a vhost with the topology, its tiers a hundred times shorter."""
    fresh = Vhost(broker, f"metering-{secrets.token_hex(4)}", PASSWORD)
    await fresh.create(tier_scale=TIER_SCALE)
    yield fresh
    await fresh.delete()


Clone = Callable[[str], Awaitable[str]]


@pytest.fixture(scope="session")
def templates() -> set[str]:
    """Return the names of the template databases made so far."""
    return set()


@pytest.fixture
def clone(postgres: PostgresServer, templates: set[str]) -> Iterator[Clone]:
    """Return a function that makes a service's migrated database; it returns the service's URL."""
    made = []

    async def make(service: str) -> str:
        template = f"template_{service}"
        if template not in templates:
            owner = f"{service}_owner"
            run_sql(postgres.superuser_url, f"DROP DATABASE IF EXISTS {template}")
            run_sql(postgres.superuser_url, f"CREATE DATABASE {template} OWNER {owner}")
            await migrate(postgres.url(template, owner, PASSWORD), service)
            templates.add(template)
        name = f"{service}_{secrets.token_hex(4)}"
        run_sql(postgres.superuser_url, f"CREATE DATABASE {name} TEMPLATE {template}")
        made.append(name)
        return postgres.url(name, service, PASSWORD)

    yield make
    for name in made:
        run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def platform(vhost: Vhost, clone: Clone, tmp_path: Path) -> AsyncIterator[Platform]:
    """Return the services, ready to be started; whatever is started is stopped at the end.

    A test fails at its end if anything the services told people holds a secret or an address.
    """
    databases = {service: await clone(service) for service in SERVICES}
    fresh = Platform(vhost, databases, tmp_path)
    await tap(vhost.admin_url)
    yield fresh
    try:
        assert await fresh.leaks() == []
    finally:
        fresh.stop()
