"""The previous release, built once; for each test a broker and databases that know no release."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from releases.release import Release, named_commit
from releases.upgrade import Upgrade
from rig.platform import Platform
from rig.vhost import Vhost

MODULES = ("customer_provisioner", "usage_ingest", "stripe_reporter")
TIER_SCALE = 0.01


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return the release that `.previous-release` names."""
    return Release.build(named_commit(), tmp_path_factory.mktemp("previous-release"))


@pytest.fixture
def databases(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Return the names of empty databases, by service."""
    names = {module: f"{module}_{secrets.token_hex(4)}" for module in MODULES}
    for module, name in names.items():
        run_sql(postgres.superuser_url, f"CREATE DATABASE {name} OWNER {module}_owner")
    yield names
    for name in names.values():
        run_sql(postgres.superuser_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def upgrade(
    release: Release,
    broker: Broker,
    postgres: PostgresServer,
    databases: dict[str, str],
    password: str,
    tmp_path: Path,
) -> AsyncIterator[Upgrade]:
    """Return a platform on which the previous release can be started first."""
    vhost = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    urls = {name: postgres.url(each, name, password) for name, each in databases.items()}
    owners = {
        name: postgres.url(each, f"{name}_owner", password) for name, each in databases.items()
    }
    platform = Platform(vhost, urls, tmp_path)
    fresh = Upgrade(platform, owners, release, TIER_SCALE)
    yield fresh
    platform.stop()
    if fresh.old:
        await vhost.delete()
