"""A bench for each test: its own vhost, journal and Stripe account."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from integration.stripe_reporter.bench import KEY, METER, Bench
from rig.vhost import Vhost
from stripe_emulator.running import running_emulator


@pytest.fixture
async def bench(vhost: Vhost, clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Bench]:
    """Return a bench whose account has one summing meter."""
    async with running_emulator([KEY], [METER]) as emulator:
        yield Bench(vhost, await clone("stripe_reporter"), emulator)
