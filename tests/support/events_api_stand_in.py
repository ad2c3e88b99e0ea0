"""A stand-in for the events API: it answers as a test wants, and keeps what came."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web

from nexus_contracts import BATCH_CONTENT_TYPE, Event, EventData, read_event
from support.http_servers import serve_routes
from support.waiting import eventually

DataT = TypeVar("DataT", bound=EventData)

KEY: Final = "a-key"

Sent = list[dict[str, Any]]
"""The events of one request."""

Answer = Callable[[Sent], web.Response]


def accept(sent: Sent) -> web.Response:
    """Confirm every event."""
    return web.json_response({"accepted": len(sent)}, status=202)


def refuse(
    *indexes: int, status: int = 400, at: str = "data.user_id", rule: str = "is unknown"
) -> web.Response:
    """Name bad events by their indexes, and the field ``at`` that breaks a ``rule``."""
    errors = [{"index": index, "field": at, "rule": rule} for index in indexes]
    return web.json_response(
        {"title": "bad events", "errors": errors},
        status=status,
        content_type="application/problem+json",
    )


@dataclass
class EventsApi:
    """What arrived: ``accepted`` has the events of requests that got 202, ``requests`` all.

    ``headers`` are those of each request with the right key. Without a ``key`` any is right.
    """

    answer: Answer = accept
    key: str | None = KEY
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[Sent] = field(default_factory=list)
    accepted: Sent = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Return the ids of the accepted events."""
        return [event["id"] for event in self.accepted]

    def events(self, kinds: Sequence[type[DataT]]) -> list[Event[DataT]]:
        """Read the accepted events by their contracts."""
        return [read_event(json.dumps(event).encode(), kinds) for event in self.accepted]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one request; an array must say that it is one."""
        if self.key and request.headers["Authorization"] != f"Bearer {self.key}":
            return web.Response(status=401)
        body = json.loads(await request.read())
        assert isinstance(body, list) == (request.content_type == BATCH_CONTENT_TYPE)
        sent: Sent = body if isinstance(body, list) else [body]
        self.headers.append(dict(request.headers))
        self.requests.append(sent)
        response = self.answer(sent)
        if response.status == web.HTTPAccepted.status_code:
            self.accepted += sent
        return response

    async def has(self, *ids: str, within: float = 20.0) -> None:
        """Wait until events with these ids were accepted."""

        async def missing() -> set[str]:
            return set(ids) - set(self.ids)

        await eventually(missing, lambda left: not left, within=within)


@asynccontextmanager
async def stand_in(key: str | None = KEY) -> AsyncIterator[EventsApi]:
    """Serve a stand-in while the context lasts."""
    made = EventsApi(key=key)
    async with serve_routes(web.post("/v1/events", made.receive)) as made.url:
        yield made
