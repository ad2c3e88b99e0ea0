"""A ledger database of the test's own, by the role that the service has."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nexus_database import Database


@pytest.fixture
async def database(clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    """Return a migrated, empty usage-ingest database."""
    fresh = Database(await clone("usage_ingest"), name="test")
    yield fresh
    await fresh.close()
