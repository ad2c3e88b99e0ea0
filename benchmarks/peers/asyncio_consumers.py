"""Other asyncio consumers of tool runs, to compare usage-ingest with: simple, usual, and minimal.

They ack after the commit, as it does; `ack-only` has nothing to commit. None validates or
aggregates runs, or handles an invalid message.
"""

import asyncio
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

import aio_pika
import aiormq
import asyncpg
from aio_pika.abc import AbstractIncomingMessage
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from yarl import URL

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE

PREFETCH: Final = 2000
MAX_BATCH: Final = 500
COUNTED_AT_ONCE: Final = 100
"""How many acked messages :func:`ack_only` reports to the benchmark at once."""

INSERT: Final = text("""
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, metadata, readings, occurred_at, billing_state)
VALUES (CAST(:id AS uuid), :source, 1, :digest, CAST(:user_id AS uuid), :server_id, :tool_name,
        :origin, :status, CAST(:metadata AS jsonb), '{"tool_call_executed": 1}',
        CAST(CAST(:time AS text) AS timestamptz), 'waiting')
ON CONFLICT (event_id) DO NOTHING
""")
Arrived = TypeVar("Arrived")

STORE: Final = "INSERT INTO bodies SELECT unnest($1::bytea[])"
COUNT: Final = "INSERT INTO acked VALUES ($1)"


def row(body: bytes) -> dict[str, Any]:
    """Return a run's row."""
    event = json.loads(body)
    digest, metadata = hashlib.sha256(body).digest(), json.dumps(event["data"]["metadata"])
    return {**event["data"], **event, "digest": digest, "metadata": metadata}


def engine(database_url: str) -> AsyncEngine:
    """Return an engine on the ledger."""
    return create_async_engine(str(URL(database_url).with_scheme("postgresql+asyncpg")))


async def one_by_one(amqp_url: str, database_url: str) -> None:
    """Run FastStream's handler with a transaction for each message, as its documentation shows."""
    broker, ledger = RabbitBroker(amqp_url, logger=None), engine(database_url)

    @broker.subscriber(
        RabbitQueue(TOOL_EXECUTED_QUEUE, declare=False),
        RabbitExchange(declare=False),
        channel=Channel(prefetch_count=PREFETCH),
    )
    async def record(message: RabbitMessage) -> None:
        async with ledger.begin() as connection:
            await connection.execute(INSERT, row(message.body))

    await broker.start()
    await asyncio.Event().wait()


async def in_batches(amqp_url: str, database_url: str) -> None:
    """Consume by aio-pika: all messages that have arrived are inserted and acked together."""
    connection, ledger = await aio_pika.connect(amqp_url), engine(database_url)
    channel = await connection.channel()
    await channel.set_qos(PREFETCH)
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    queue = await channel.get_queue(TOOL_EXECUTED_QUEUE, ensure=False)
    await queue.consume(arrived.put)
    while True:
        batch = await _batch(arrived)
        async with ledger.begin() as transaction:
            await transaction.execute(INSERT, [row(message.body) for message in batch])
        await batch[-1].ack(multiple=True)


async def unread(amqp_url: str, database_url: str) -> None:
    """Store bodies unread: the minimum in Python with a broker and a database."""
    connection, ledger = await aiormq.connect(amqp_url), await asyncpg.connect(database_url)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=PREFETCH)
    arrived: asyncio.Queue[aiormq.abc.DeliveredMessage] = asyncio.Queue()
    await channel.basic_consume(TOOL_EXECUTED_QUEUE, arrived.put)
    while True:
        batch = await _batch(arrived)
        await ledger.execute(STORE, [message.body for message in batch])
        await channel.basic_ack(batch[-1].delivery_tag or 0, multiple=True)


async def ack_only(amqp_url: str, database_url: str) -> None:
    """Ack each message by itself and store nothing: what aio-pika takes for a delivery."""
    counts = await asyncpg.create_pool(database_url, min_size=1, max_size=1)
    connection = await aio_pika.connect(amqp_url)
    channel = await connection.channel()
    await channel.set_qos(PREFETCH)
    acked = itertools.count(1)

    async def ack(message: AbstractIncomingMessage) -> None:
        await message.ack()
        if next(acked) % COUNTED_AT_ONCE == 0:
            await counts.execute(COUNT, COUNTED_AT_ONCE)

    queue = await channel.get_queue(TOOL_EXECUTED_QUEUE, ensure=False)
    await queue.consume(ack)
    await asyncio.Event().wait()


async def _batch(arrived: asyncio.Queue[Arrived]) -> Sequence[Arrived]:
    batch = [await arrived.get()]
    while len(batch) < MAX_BATCH and not arrived.empty():
        batch.append(arrived.get_nowait())
    return batch


PEERS: Final[Mapping[str, Callable[[str, str], Coroutine[Any, Any, None]]]] = MappingProxyType(
    {"one-by-one": one_by_one, "in-batches": in_batches, "unread": unread, "ack-only": ack_only}
)

if __name__ == "__main__":
    asyncio.run(PEERS[sys.argv[1]](os.environ["AMQP_URL"], os.environ["DATABASE_URL"]))
