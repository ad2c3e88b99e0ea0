"""A bench for each test: empty queues, its own journal and Stripe account."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from integration.stripe_reporter.bench import KEY, METER, Bench
from local_stack.servers import Broker
from stripe_emulator.running import running_emulator
from support.vhost import Vhost

TIER_SCALE = 0.01


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def lasting(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return one vhost for all tests: making one takes longer than most of them."""
    made = Vhost(broker, f"reporter-{secrets.token_hex(4)}", password)
    await made.create(tier_scale=TIER_SCALE)
    yield made
    await made.delete()


@pytest.fixture
async def vhost(lasting: Vhost) -> AsyncIterator[Vhost]:
    """Return a vhost whose queues are empty."""
    yield lasting
    await lasting.empty()


@pytest.fixture
async def bench(vhost: Vhost, clone: Callable[[str], Awaitable[str]]) -> AsyncIterator[Bench]:
    """Return a bench whose account has one summing meter."""
    async with running_emulator([KEY], [METER]) as emulator:
        yield Bench(vhost, await clone("stripe_reporter"), emulator)
