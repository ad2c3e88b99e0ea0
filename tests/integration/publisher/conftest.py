"""Publishers in this process, and a stand-in for the events API on their other side."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nexus_publisher import Dropped, Publisher
from nexus_publisher.http import HttpTransport
from support.events_api_stand_in import KEY, EventsApi, stand_in

RUN: dict[str, Any] = {
    "user_id": "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f",
    "server_id": "weather",
    "tool_name": "forecast",
    "origin": "hub",
    "status": "succeeded",
}


@dataclass
class Host:
    """A publisher in this process, and what it dropped."""

    publisher: Publisher
    dropped: list[Dropped]

    def run(self, **fields: Any) -> Any:
        """Record a tool run; return the result."""
        return self.publisher.tool_executed(**{**RUN, **fields})


@pytest.fixture
async def api() -> AsyncIterator[EventsApi]:
    """Return an API that confirms every event."""
    async with stand_in() as made:
        yield made


@pytest.fixture
async def start(api: EventsApi, tmp_path: Path) -> AsyncIterator[Callable[..., Host]]:
    """Return a function that makes a publisher with a spool, closed at the end of the test."""
    hosts: list[Host] = []

    def make(**settings: Any) -> Host:
        dropped: list[Dropped] = []
        transport = settings.pop("transport", None) or HttpTransport(api.url, KEY)
        chosen = {"spool": tmp_path / "spool", "drain_seconds": 0.5, "handle_sigterm": False}
        publisher = Publisher(
            transport, source="test/hub", **{"on_drop": dropped.append, **chosen, **settings}
        )
        hosts.append(Host(publisher, dropped))
        return hosts[-1]

    yield make
    for host in hosts:
        await host.publisher.aclose()
