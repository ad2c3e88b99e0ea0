"""The HTTP side of every service: health, readiness and metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nexus_messaging.lifecycle import StartError

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a few words, or nothing."""


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    registry: CollectorRegistry,
    *,
    health: Mapping[str, Check],
    readiness: Mapping[str, Check],
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[None]:
    """Serve `/healthz`, `/readyz`, `/metrics` and ``routes`` while the context lasts.

    Raises:
        StartError: the address can't be used.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _answer(health)),
            web.get("/readyz", _answer(readiness)),
            web.get("/metrics", _metrics(registry)),
            *routes,
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise StartError(f"HTTP_PORT {port}: {error.strerror}; choose another") from None
        yield
    finally:
        await runner.cleanup()


def _answer(checks: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        wrong = {name: fault for name, check in checks.items() if (fault := await check())}
        body = {"status": "failing", "wrong": wrong} if wrong else {"status": "ok"}
        return web.json_response(body, status=503 if wrong else 200)

    return answer


def _metrics(
    registry: CollectorRegistry,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return metrics
