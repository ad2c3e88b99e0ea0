"""The HTTP side of every service: health, readiness and metrics."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nexus_service.checking import Check
from nexus_service.errors import StartError
from nexus_service.problems import CONTENT_TYPE, Problem

CHECK_TIMEOUT: Final = 2.0
"""Seconds for each check. Most probes time out after 5 seconds or less, so `/readyz` must answer
before that even if the database is silent."""

NO_CHECKS: Final[Mapping[str, Check]] = MappingProxyType({})


def problem_response(problem: Problem) -> web.Response:
    """Return the answer that carries ``problem``."""
    return web.Response(
        body=problem.body(),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    registry: CollectorRegistry,
    *,
    health: Mapping[str, Check],
    readiness: Mapping[str, Check],
    remarks: Mapping[str, Check] = NO_CHECKS,
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[None]:
    """Serve `/healthz`, `/readyz`, `/metrics` and ``routes`` while the context lasts.

    `/readyz` shows ``remarks``, but they do not make it fail. A fault elsewhere, such as at Stripe,
    is no reason to restart this process or to send its work to another one.

    Raises:
        StartError: the address can't be used.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _answer_with(health, NO_CHECKS)),
            web.get("/readyz", _answer_with(readiness, remarks)),
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


def _answer_with(
    checks: Mapping[str, Check], remarks: Mapping[str, Check]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        status, body = await probe(checks, remarks)
        return web.json_response(body, status=status)

    return answer


async def probe(
    checks: Mapping[str, Check], remarks: Mapping[str, Check] = NO_CHECKS
) -> tuple[int, dict[str, Any]]:
    """Run ``checks``; return the status and the body of a probe's answer."""
    faults = await _run_checks(checks)
    body: dict[str, Any] = {"status": "failing", "wrong": faults} if faults else {"status": "ok"}
    if current_remarks := await _run_checks(remarks):
        body["remarks"] = current_remarks
    return (503 if faults else 200), body


async def _run_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    faults = await asyncio.gather(*map(_run_check, checks.values()))
    return {name: fault for name, fault in zip(checks, faults, strict=True) if fault}


async def _run_check(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT:.0f} s"


def _metrics(
    registry: CollectorRegistry,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return metrics
