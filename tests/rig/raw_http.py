"""An HTTP server that answers with bytes as they are given, and breaks off where it is to."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)

Respond = Callable[[bytes], bytes | None]
"""Returns what a request, of which the first line is given, is answered with.

None keeps the connection open without an answer.
"""


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[str]:
    """Offer a server's address; each connection is closed after its answer."""
    held: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            answer = respond(head.split(b"\r\n", 1)[0])
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in held:
            writer.close()


def response(
    status: int, body: bytes, headers: dict[str, str] | None = None, *, reason: str = "Whatever"
) -> bytes:
    """Return an answer as it stands on the wire."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
