"""One stack for all kill points."""

from collections.abc import AsyncIterator

import pytest_asyncio

from chaos.scene import Scene, open_scene


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def scene() -> AsyncIterator[Scene]:
    """Return a running stack whose steps can be held open from outside."""
    async with open_scene() as opened:
        yield opened
