"""One stack with proxies for a module: starting it takes longer than most of its tests."""

from collections.abc import AsyncIterator

import pytest_asyncio

from chaos.scene import Scene, open_scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Return a running stack whose steps can be held open from outside."""
    async with open_scene() as opened:
        yield opened
