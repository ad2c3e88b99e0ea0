"""The real broker and the real database of a test run: one of each, started once.

Each test gets a vhost of its own with the whole topology applied, and databases cloned from a
migrated template.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local_stack.processes import exit_on_sigterm
from local_stack.provision import provide_broker, provide_postgres
from local_stack.runs import run_directory
from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_database import migrate
from support.databases import MODULES, Clone, empty_database, make_role
from support.leak_check import tap
from support.platform import Platform
from support.vhost import Vhost, open_vhost

PASSWORD = secrets.token_hex(16)


@pytest.fixture(scope="session")
def password() -> str:
    """Return the password of every role and broker user of this run.

    Roles and users belong to the whole server, so that every test needs the same password.
    """
    return PASSWORD


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Return the directory of this run's servers."""
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
        for module in MODULES:
            for role in (f"{module}_owner", module):
                make_role(server, role, PASSWORD)
        make_role(server, "usage_reader", PASSWORD)
        yield server


@pytest.fixture
async def vhost(broker: Broker) -> AsyncIterator[Vhost]:
    """Return a vhost with the topology; its retry tiers wait a hundredth of their time."""
    async with open_vhost(broker, PASSWORD) as made:
        yield made


@pytest.fixture(scope="session")
def templates() -> set[str]:
    """Return the names of the template databases made so far."""
    return set()


@pytest.fixture
def clone(postgres: PostgresServer, templates: set[str]) -> Iterator[Clone]:
    """Return a function that makes a service's migrated database; it returns the service's URL."""
    with ExitStack() as made:

        async def make(service: str) -> str:
            template = f"template_{service}"
            if template not in templates:
                owner = f"{service}_owner"
                run_sql(postgres.superuser_url, f"DROP DATABASE IF EXISTS {template}")
                run_sql(postgres.superuser_url, f"CREATE DATABASE {template} OWNER {owner}")
                await migrate(postgres.url(template, owner, PASSWORD), service)
                templates.add(template)
            options = f"TEMPLATE {template}"
            name = made.enter_context(empty_database(postgres, service, options=options))
            return postgres.url(name, service, PASSWORD)

        yield make


@pytest.fixture
async def platform(vhost: Vhost, clone: Clone, tmp_path: Path) -> AsyncIterator[Platform]:
    """Return the services, ready to be started; they are stopped at the end.

    A test fails at its end if any output of the services holds a secret or an address.
    """
    databases = {module: await clone(module) for module in MODULES}
    fresh = Platform(vhost, databases, tmp_path)
    await tap(vhost.admin_url)
    yield fresh
    try:
        assert await fresh.leaks() == []
    finally:
        fresh.stop()
