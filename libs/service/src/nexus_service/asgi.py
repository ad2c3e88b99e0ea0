"""Runs an HTTP API written with Starlette, on uvicorn in the running event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import Any, Final

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nexus_service.checking import Check
from nexus_service.errors import StartError
from nexus_service.http import probe
from nexus_service.problems import CONTENT_TYPE, Problem

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the idle time-out of the usual load balancers (60 s): they would send a request on a
connection that is just being closed."""

CLOSE_SECONDS: Final = 1.0
"""For requests in progress, if nothing has drained them before."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's first line and headers, and of the trailers after its body."""


class _Protocol(HttpToolsProtocol):
    """HTTP by httptools, which costs less than h11, with a limit of headers as h11 has one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._past_head = False

    @override
    def data_received(self, data: bytes) -> None:
        self._past_head = False
        super().data_received(data)
        self._head_bytes = 0 if self._past_head else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Too many bytes of headers.")

    @override
    def on_headers_complete(self) -> None:
        self._past_head = True
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._past_head = True
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._past_head = True
        super().on_message_complete()


class _Server(uvicorn.Server):
    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the lifecycle's


class AsgiServer:
    """A running server."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._server = server
        self._serving = asyncio.create_task(server.serve(sockets=[listener]))

    async def drain(self, seconds: float) -> None:
        """Accept no more requests, and answer those in progress within ``seconds``."""
        self._server.config.timeout_graceful_shutdown = ceil(seconds)
        self._server.should_exit = True
        await self._serving


@asynccontextmanager
async def serving_asgi(app: ASGIApp, host: str, port: int) -> AsyncIterator[AsgiServer]:
    """Serve ``app`` while the context lasts; with port 0, any free port.

    Raises:
        StartError: the address can't be used.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        http=_Protocol,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ws="none",
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # Connections inherit it. asyncio sets it only where the socket names its protocol, and an
        # answer's body, sent after its headers, waited up to 40 ms for the client to acknowledge.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        address = f"HTTP_HOST {host}, HTTP_PORT {port}"
        raise StartError(f"{address}: {error.strerror}; choose others") from None
    server = AsgiServer(_Server(config), listener)
    try:
        yield server
    finally:
        await server.drain(CLOSE_SECONDS)


def problem_response(problem: Problem) -> Response:
    """Return the answer that carries ``problem``."""
    return Response(
        problem.body(), status_code=problem.status, headers=problem.headers, media_type=CONTENT_TYPE
    )


def probe_routes(
    registry: CollectorRegistry, *, health: Mapping[str, Check], readiness: Mapping[str, Check]
) -> list[Route]:
    """Return `/healthz`, `/readyz` and `/metrics`."""

    async def healthz(_request: Request) -> Response:
        status, body = await probe(health)
        return JSONResponse(body, status)

    async def readyz(_request: Request) -> Response:
        status, body = await probe(readiness)
        return JSONResponse(body, status)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
