"""The HTTP side of every service: health, readiness and metrics."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nexus_service.lifecycle import StartError

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a few words, or nothing."""

ANSWER_WITHIN: Final = 2.0
"""Seconds for each check: a probe that waits for a silent database learns nothing before it gives
up itself, mostly after 5 seconds or less."""

NOTHING: Final[Mapping[str, Check]] = MappingProxyType({})


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    registry: CollectorRegistry,
    *,
    health: Mapping[str, Check],
    readiness: Mapping[str, Check],
    remarks: Mapping[str, Check] = NOTHING,
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[None]:
    """Serve `/healthz`, `/readyz`, `/metrics` and ``routes`` while the context lasts.

    ``remarks`` are told by `/readyz` and fail nothing: what somebody else has to mend, such as
    Stripe, is no reason to restart this process or to send its work elsewhere.

    Raises:
        StartError: the address can't be used.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _answer(health, NOTHING)),
            web.get("/readyz", _answer(readiness, remarks)),
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
            address = f"HTTP_HOST {host}, HTTP_PORT {port}"
            raise StartError(f"{address}: {error.strerror}; choose others") from None
        yield
    finally:
        await runner.cleanup()


def _answer(
    checks: Mapping[str, Check], remarks: Mapping[str, Check]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        wrong = await _found(checks)
        body: dict[str, Any] = {"status": "failing", "wrong": wrong} if wrong else {"status": "ok"}
        if told := await _found(remarks):
            body["remarks"] = told
        return web.json_response(body, status=503 if wrong else 200)

    return answer


async def _found(checks: Mapping[str, Check]) -> dict[str, str]:
    faults = await asyncio.gather(*map(_asked, checks.values()))
    return {name: fault for name, fault in zip(checks, faults, strict=True) if fault}


async def _asked(check: Check) -> str | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await check()
    except TimeoutError:
        return f"no answer within {ANSWER_WITHIN:.0f} s"


def _metrics(
    registry: CollectorRegistry,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return metrics
