"""A browser in which the operator is logged in to the broker's management UI."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from browser.chromium import chromium
from browser.management_ui import ManagementUi
from integration.messaging.bench import SHORTEST, Bench
from local_stack.servers import Broker
from rig.vhost import Vhost


@pytest.fixture
async def vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost with the topology, every tier as short as it can be."""
    fresh = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    await fresh.create(tier_scale=SHORTEST)
    yield fresh
    await fresh.delete()


@pytest.fixture
async def ui(vhost: Vhost, tmp_path: Path) -> AsyncIterator[ManagementUi]:
    """Return the management UI with the operator logged in."""
    with chromium(tmp_path) as browser:
        page = ManagementUi(browser, vhost.broker.management_url, vhost.name)
        await page.log_in("operator", vhost.password)
        yield page


@pytest.fixture
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a consumer of tool runs, built as usage-ingest builds its own; or of another kind."""
    return Bench(vhost, getattr(request, "param", "batch"))
