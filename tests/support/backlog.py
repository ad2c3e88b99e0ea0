"""Large backlogs of messages or rows, as a service finds after a long outage."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Self
from uuid import UUID, uuid4

import aiormq
import asyncpg
from aiormq.abc import AbstractChannel

from nexus_contracts import CONTENT_TYPE, Event, EventData
from support.events import report, tool_run, user_created
from support.vhost import Vhost
from support.waiting import eventually

AT_ONCE = 500
BODY_BYTES = 1024
LARGE_BYTES = 250_000
"""Nearly the largest body that the contract allows."""

RUNS_PER_SECOND = 2000
EXAMPLE_SECONDS = 2
CLOSED_SECONDS = 60
"""Age of the newest run of a backlog: every window has closed."""

DUE_EVENTS = """
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, readings, occurred_at, billing_state)
SELECT gen_random_uuid(), 'test/hub', 1, decode(repeat('00', 32), 'hex'),
       ($2::uuid[])[1 + n % cardinality($2::uuid[])], 'weather', 'forecast', 'direct', 'succeeded',
       '{"tool_call_executed": 1}', now() - interval '1 hour' + (n % 600) * interval '1 second', $3
  FROM generate_series(1, $1::int) AS n
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A message to be repeated, and its id as its body has it."""

    type: str
    id: bytes
    body: bytes

    @classmethod
    def of(cls, event: Event[EventData]) -> Self:
        """Take ``event`` as an example."""
        return cls(event.type, str(event.id).encode(), event.body())


def runs(users: Sequence[UUID], size: int = BODY_BYTES) -> list[Example]:
    """Return examples of tool runs of a minute ago, one of each user, of ``size`` bytes each."""
    moment = datetime.now(UTC) - timedelta(minutes=1)
    return [Example.of(_padded(user, moment, size)) for user in users]


def runs_over_time(users: Sequence[UUID], count: int, tools: int = 1) -> list[Example]:
    """Return examples of ``count`` runs in the order of their times, as 2,000 a second make them.

    The newest is so old that its window has closed. Users take turns, each with the next of so many
    ``tools``. Runs with the same time, user and tool are one example, repeated.
    """
    each_time = EXAMPLE_SECONDS * RUNS_PER_SECOND
    times = -(-count // each_time)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    begin = now - timedelta(seconds=times * EXAMPLE_SECONDS + CLOSED_SECONDS)
    listed: list[Example] = []
    turn = 0
    for number in range(times):
        moment = begin + number * timedelta(seconds=EXAMPLE_SECONDS)
        examples = []
        for _ in range(min(tools, each_time // len(users))):
            tool = f"tool-{turn % tools}"
            examples += [Example.of(_padded(user, moment, BODY_BYTES, tool)) for user in users]
            turn += 1
        listed += islice(cycle(examples), min(each_time, count - len(listed)))
    return listed


def reports(customers: Sequence[str]) -> list[Example]:
    """Return examples of reports, identified as usage-ingest's are."""
    return [Example.of(report(customer)) for customer in customers]


def user_examples(count: int) -> list[Example]:
    """Return examples of so many users; repetitions of one are of the same user."""
    return [Example.of(user_created(uuid4(), f"{number}@example.com")) for number in range(count)]


async def pile_up(
    vhost: Vhost, examples: Sequence[Example], count: int, *, exchange: str, queue: str
) -> None:
    """Publish ``count`` copies of the examples, each under a new id.

    The queue must have no consumer: its depth shows that nothing was lost.
    """
    admin = vhost.broker.admin
    connection = await aiormq.connect(vhost.broker.amqp_url(admin.user, admin.password, vhost.name))
    try:
        channel = await connection.channel(publisher_confirms=False)
        for some in _parts(islice(cycle(examples), count)):
            copies = (publish_copy(channel, each, str(uuid4()), exchange=exchange) for each in some)
            await asyncio.gather(*copies)
        await channel.queue_declare(queue, passive=True)  # answered once all before it is read
    finally:
        await connection.close()
    await eventually(lambda: vhost.depth(queue), lambda depth: depth == count, within=300, every=1)


async def publish_copy(
    channel: AbstractChannel,
    example: Example,
    new_id: str,
    *,
    exchange: str,
    key: str | None = None,
) -> None:
    """Publish an example under a new id; its routing key is its type by default."""
    await channel.basic_publish(
        example.body.replace(example.id, new_id.encode()),
        exchange=exchange,
        routing_key=example.type if key is None else key,
        properties=aiormq.spec.Basic.Properties(
            content_type=CONTENT_TYPE,
            message_id=new_id,
            message_type=example.type,
            delivery_mode=2,
        ),
    )


async def fill_ledger(owner_url: str, users: Sequence[UUID], count: int, state: str) -> None:
    """Insert ``count`` past events of the users into usage-ingest's ledger, as its owner."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute(DUE_EVENTS, count, list(users), state)
    finally:
        await connection.close()


def unreadable(event_type: str, size: int) -> list[Example]:
    """Return an example that is no event, of ``size`` bytes."""
    return [Example(event_type, b"no id", bytes(size))]


def _padded(user: UUID, moment: datetime, size: int, tool: str = "forecast") -> Event[EventData]:
    bare = tool_run(user, time=moment, tool_name=tool, metadata={"padding": ""})
    padding = {"padding": "x" * (size - len(bare.body()))}
    return tool_run(user, time=moment, event_id=bare.id, tool_name=tool, metadata=padding)


def _parts(things: Iterable[Example]) -> Iterable[list[Example]]:
    rest = iter(things)
    while some := list(islice(rest, AT_ONCE)):
        yield some
