"""The previous release, built once; for each test an empty vhost and empty databases."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local_stack.servers import Broker
from local_stack.servers import Database as PostgresServer
from releases.release import Release, named_commit
from releases.upgrade import Upgrade
from support.databases import MODULES, empty_database
from support.platform import Platform
from support.vhost import TIER_SCALE, Vhost


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return the release that `.previous-release` names."""
    return Release.build(named_commit(), tmp_path_factory.mktemp("previous-release"))


@pytest.fixture
def databases(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Return the names of empty databases, by service."""
    with ExitStack() as made:
        yield {
            module: made.enter_context(
                empty_database(postgres, module, options=f"OWNER {module}_owner")
            )
            for module in MODULES
        }


@pytest.fixture
async def upgrade(
    release: Release,
    broker: Broker,
    postgres: PostgresServer,
    databases: dict[str, str],
    password: str,
    tmp_path: Path,
) -> AsyncIterator[Upgrade]:
    """Return a platform on which the previous release is started first."""
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
