"""A stand-in for the usage API's entitlements: it answers as a test wants, and counts requests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from support.http_servers import serve_routes

KEY: Final = "a-key"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def entitlement(user_id: str, **changes: Any) -> dict[str, Any]:
    """Return an answer that allows everything, but for ``changes``."""
    return {
        "user_id": user_id,
        "account_id": user_id,
        "plan": "pro",
        "plan_name": "Pro",
        "status": "active",
        "features": [],
        "denied": [],
        "limits": [],
        "rate_limits": [],
        "period": {"start": "2026-03-01T00:00:00Z", "end": None, "basis": "utc_month"},
        "seats": None,
        "as_of": "2026-03-01T12:00:00Z",
    } | changes


def limit_of(remaining: int) -> dict[str, Any]:
    """Return a hard limit for all tools, of which this much is left."""
    return {
        "name": "runs",
        "meter": "tool_call_executed",
        "server_id": "*",
        "tool_name": "*",
        "limit": 1000,
        "used": 1000 - remaining,
        "remaining": remaining,
        "hard": True,
        "period_start": "2026-03-01T00:00:00Z",
        "period_end": "2026-04-01T00:00:00Z",
    }


@dataclass
class UsageApi:
    """``answer`` replaces an answer by ``changes`` of one that allows everything."""

    max_age: int = 30
    answer: Answer | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    requests: list[web.Request] = field(default_factory=list)

    @property
    def users(self) -> list[str]:
        """Return the user of each request."""
        return [request.match_info["user_id"] for request in self.requests]

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as the usage API does, with an ETag of what it says."""
        self.requests.append(request)
        if self.answer is not None:
            return await self.answer(request)
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return web.Response(status=401)
        headers = {
            "ETag": f'"{hash(str(self.changes)):x}"',
            "Cache-Control": f"private, max-age={self.max_age}",
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        body = entitlement(request.match_info["user_id"], **self.changes)
        return web.json_response(body, headers=headers)


@asynccontextmanager
async def usage_api() -> AsyncIterator[UsageApi]:
    """Serve a stand-in while the context lasts."""
    made = UsageApi()
    route = web.get("/v1/entitlements/{user_id}", made.receive)
    async with serve_routes(route) as made.url:
        yield made
