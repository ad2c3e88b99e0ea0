"""The events API as hosts of the TypeScript package call it."""

from collections.abc import AsyncIterator

import pytest

from support.events_api import EventsApi, running_events_api
from support.vhost import Vhost


@pytest.fixture
async def events_api(vhost: Vhost) -> AsyncIterator[EventsApi]:
    """Return the running API, with a key for a publisher that may publish anything."""
    async with running_events_api(vhost) as api:
        yield api
