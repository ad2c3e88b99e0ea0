"""TLS in front of a PostgreSQL whose own programs were built without it.

It negotiates as PostgreSQL does: a client that does not request TLS is disconnected. See
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from local_stack.ports import LOOPBACK

_TLS_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
_CHUNK = 65536


@asynccontextmanager
async def tls_in_front_of(host: str, port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Take TLS connections for the PostgreSQL at ``host`` and ``port``; yield the port for them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                if await reader.readexactly(len(_TLS_REQUEST)) == _TLS_REQUEST:
                    writer.write(b"S")
                    await writer.start_tls(context)
                    await _join(reader, writer, *await asyncio.open_connection(host, port))
            except (OSError, asyncio.IncompleteReadError):
                return  # the client did not trust the certificate, or disconnected

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    with closing(server_writer):
        ways = {
            asyncio.create_task(_copy(reader, server_writer)),
            asyncio.create_task(_copy(server_reader, writer)),
        }
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
