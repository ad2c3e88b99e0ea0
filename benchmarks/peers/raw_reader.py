"""AMQP 0-9-1 read by hand and rows sent as arrays: the limit for a consumer in Python.

It does what usage-ingest can't do without: a row of the ledger for each run, an ack after the
commit. It validates, compares, counts and retries nothing, and a lost connection ends it. Frames:
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, section 2.3.
"""

import asyncio
import hashlib
import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
from typing_extensions import override
from yarl import URL

PREFETCH: Final = 2000
MAX_BATCH: Final = 500

METHOD, HEADER, BODY = 1, 2, 3
FRAME: Final = struct.Struct(">BHL")
"""A frame's type, channel, and the size of its payload, after which comes one byte more."""

DELIVER: Final = bytes((0, 60, 0, 60))

INSERT: Final = """
INSERT INTO usage_events (schema_version, readings, billing_state, event_id, source, digest,
                          user_id, server_id, tool_name, origin, status, metadata, occurred_at)
SELECT 1, '{"tool_call_executed": 1}', 'waiting', new.*
  FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[], $7::text[],
              $8::text[], $9::jsonb[], $10::timestamptz[]) AS new
ON CONFLICT (event_id) DO NOTHING
"""

Arrived = list[tuple[int, bytes]]
"""Delivery tags and bodies."""


class Reader(asyncio.Protocol):
    """Answers the broker's handshake and cuts deliveries out of what it sends then."""

    def __init__(self, url: URL, queue: str) -> None:
        login = f"\0{url.user}\0{url.password}".encode()
        vhost = url.path.removeprefix("/").encode()
        self._answers: Mapping[tuple[int, int], bytes] = {
            (10, 10): _method(
                0, 10, 11, bytes(4), _short(b"PLAIN"), _long(login), _short(b"en_US")
            ),
            (10, 30): _method(0, 10, 31, struct.pack(">HLH", 1, 131072, 0))
            + _method(0, 10, 40, _short(vhost), bytes(2)),
            (10, 41): _method(1, 20, 10, bytes(1)),
            (20, 11): _method(1, 60, 10, struct.pack(">LHB", 0, PREFETCH, 0)),
            (60, 11): _method(1, 60, 20, bytes(2), _short(queue.encode()), bytes(6)),
            (60, 21): b"",
        }
        self._unread = b""
        self._tag, self._missing, self._body = 0, 0, b""
        self._arrived: Arrived = []
        self._more = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say which protocol is spoken."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"AMQP\0\0\x09\x01")

    @override
    def data_received(self, data: bytes) -> None:
        """Take every frame that has arrived in full."""
        data = self._unread + data
        at = 0
        while len(data) - at > FRAME.size:
            kind, _, size = FRAME.unpack_from(data, at)
            payload = at + FRAME.size
            if payload + size >= len(data):
                break
            if kind == BODY:
                self._body += data[payload : payload + size]
                self._missing -= size
            elif kind == HEADER:
                [self._missing] = struct.unpack_from(">Q", data, payload + 4)
                self._body = b""
            elif data[payload : payload + 4] == DELIVER:
                consumer_tag_size = data[payload + 4]
                [self._tag] = struct.unpack_from(">Q", data, payload + 5 + consumer_tag_size)
            elif kind == METHOD:
                self._transport.write(self._answers[struct.unpack_from(">HH", data, payload)])
            if kind in {HEADER, BODY} and not self._missing:
                self._arrived.append((self._tag, self._body))
            at = payload + size + 1
        self._unread = data[at:]
        if self._arrived:
            self._more.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End with the connection."""
        sys.exit(f"the broker closed the connection: {exc}")

    async def batch(self) -> Arrived:
        """Wait for deliveries; return what has arrived."""
        await self._more.wait()
        batch, self._arrived = self._arrived[:MAX_BATCH], self._arrived[MAX_BATCH:]
        if not self._arrived:
            self._more.clear()
        return batch

    def ack(self, tag: int) -> None:
        """Ack all deliveries up to ``tag``."""
        self._transport.write(_method(1, 60, 80, struct.pack(">QB", tag, 1)))


def _method(channel: int, class_id: int, method_id: int, *arguments: bytes) -> bytes:
    payload = struct.pack(">HH", class_id, method_id) + b"".join(arguments)
    return FRAME.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def _short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">L", len(text)) + text


def columns(batch: Arrived) -> Sequence[Sequence[Any]]:
    """Return the values of the batch's rows, column by column."""
    rows = []
    for _, body in batch:
        event = json.loads(body)
        data = event["data"]
        rows.append(
            (
                *(event["id"], event["source"], hashlib.sha256(body).digest(), data["user_id"]),
                *(data["server_id"], data["tool_name"], data["origin"], data["status"]),
                json.dumps(data["metadata"]),
                datetime.fromisoformat(event["time"]),
            )
        )
    return list(zip(*rows, strict=True))


async def record(amqp_url: str, database_url: str, queue: str) -> None:
    """Record what arrives in the queue, batch by batch."""
    url, ledger = URL(amqp_url), await asyncpg.connect(database_url)
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(
        lambda: Reader(url, queue), str(url.host), url.port or 5672
    )
    while True:
        batch = await reader.batch()
        await ledger.execute(INSERT, *columns(batch))
        reader.ack(batch[-1][0])


if __name__ == "__main__":
    asyncio.run(record(os.environ["AMQP_URL"], os.environ["DATABASE_URL"], sys.argv[1]))
