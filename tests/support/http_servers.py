"""HTTP servers of a test's own: an application, or bytes as they are given."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from local_stack.ports import LOOPBACK

LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)

Respond = Callable[[bytes], bytes | None]
"""Returns the answer to a request, given its first line.

None keeps the connection open without an answer.
"""


@asynccontextmanager
async def serve_routes(*routes: web.RouteDef, port: int = 0) -> AsyncIterator[str]:
    """Serve ``routes`` while the context lasts, on a free port by default; yield the URL."""
    application = web.Application(client_max_size=0)  # without a limit
    application.add_routes(routes)
    # A request that a test leaves unanswered holds up no end.
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[str]:
    """Serve bytes as they are given; each connection is closed after its answer."""
    held: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):  # the client has hung up
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            answer = respond(head.split(b"\r\n", 1)[0])
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in held:
            writer.close()


def response(
    status: int, body: bytes, headers: dict[str, str] | None = None, *, reason: str = "Whatever"
) -> bytes:
    """Return an answer as it is sent over the network."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
