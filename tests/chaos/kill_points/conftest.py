"""One stack for all kill points."""

from collections.abc import AsyncIterator

import pytest_asyncio

from chaos.controlled_stack import ControlledStack, controlled_stack


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def stack() -> AsyncIterator[ControlledStack]:
    """Return a running stack whose steps can be held from outside."""
    async with controlled_stack() as running:
        yield running
