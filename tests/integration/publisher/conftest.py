"""The other side of a publisher: an HTTP server that answers as the events API does."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nexus_publisher import Dropped, Publisher
from nexus_publisher.http import HttpTransport
from support.http_servers import serve_routes
from support.waiting import eventually

KEY = "a-key"
RUN: dict[str, Any] = {
    "user_id": "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f",
    "server_id": "weather",
    "tool_name": "forecast",
    "origin": "hub",
    "status": "succeeded",
}

Answer = Callable[[list[dict[str, Any]]], web.Response]


def accept(_: list[dict[str, Any]]) -> web.Response:
    """Confirm every event."""
    return web.Response(status=202)


def refuse(*indexes: int) -> web.Response:
    """Name bad events by their indexes."""
    errors = [{"index": index, "field": "data.user_id", "rule": "is unknown"} for index in indexes]
    return web.json_response(
        {"title": "bad events", "errors": errors},
        status=400,
        content_type="application/problem+json",
    )


@dataclass
class EventsApi:
    """What arrived: ``accepted`` has the events of requests that got 202, ``requests`` all."""

    answer: Answer = accept
    url: str = ""
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Return the ids of the accepted events."""
        return [event["id"] for event in self.accepted]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one request, if it is as the API wants it."""
        assert request.content_type == "application/cloudevents-batch+json"
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return web.Response(status=401)
        batch = json.loads(await request.read())
        self.requests.append(batch)
        response = self.answer(batch)
        if response.status == web.HTTPAccepted.status_code:
            self.accepted += batch
        return response

    async def has(self, *ids: str, within: float = 20.0) -> None:
        """Wait until events with these ids were accepted."""

        async def missing() -> set[str]:
            return set(ids) - set(self.ids)

        await eventually(missing, lambda left: not left, within=within)


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
    """Return a running events API."""
    made = EventsApi()
    async with serve_routes(web.post("/v1/events", made.receive)) as url:
        made.url = url
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
