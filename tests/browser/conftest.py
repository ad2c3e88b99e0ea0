"""A browser with the operator logged in to the broker's management UI."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from browser.chromium import chromium
from browser.management_ui import ManagementUi
from integration.messaging.bench import SHORTEST, Bench
from local_stack.servers import Broker
from support.vhost import Vhost, open_vhost


@pytest.fixture
async def vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost with the topology, its retry tiers as short as possible."""
    async with open_vhost(broker, password, tier_scale=SHORTEST) as made:
        yield made


@pytest.fixture
async def ui(vhost: Vhost, tmp_path: Path) -> AsyncIterator[ManagementUi]:
    """Return the management UI with the operator logged in."""
    with chromium(tmp_path) as browser:
        page = ManagementUi(browser, vhost.broker.management_url, vhost.name)
        await page.log_in("operator", vhost.password)
        yield page


@pytest.fixture
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a consumer of tool runs in batches, as usage-ingest has it, or of the given kind."""
    return Bench(vhost, getattr(request, "param", "batch"))
