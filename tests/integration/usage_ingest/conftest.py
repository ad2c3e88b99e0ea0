"""Databases of the test's own, used with the service's role."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from integration.usage_ingest.lost_ledger import ONE, LostLedger
from local_stack.servers import Database as PostgresServer
from nexus_database import Database


@pytest.fixture
async def database(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return a migrated, empty usage-ingest database."""
    fresh = Database(await clone("usage_ingest"), name="test")
    yield fresh
    await fresh.close()


@pytest.fixture
async def lost(
    postgres: PostgresServer, clone: Callable[[str], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[LostLedger]:
    """Return an empty ledger with one customer."""
    fresh = LostLedger(postgres, await clone("usage_ingest"), tmp_path)
    await fresh.announce(ONE, "cus_one")
    yield fresh
    await fresh.database.close()
