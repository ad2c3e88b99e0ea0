"""The services as processes, on a vhost and databases of the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from rig.platform import Platform
from rig.vhost import Vhost


@pytest.fixture
async def platform(
    vhost: Vhost, clone: Callable[[str], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[Platform]:
    """Return services that are ready to be started; whatever is started is stopped at the end."""
    databases = {
        service: await clone(service)
        for service in ("customer_provisioner", "usage_ingest", "stripe_reporter")
    }
    fresh = Platform(vhost, databases, tmp_path)
    yield fresh
    fresh.stop()
