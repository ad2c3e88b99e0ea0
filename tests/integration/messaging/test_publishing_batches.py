"""Publishing many at once: each has its own answer, whatever becomes of the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import aiormq
import pytest
from pamqp.common import FieldTable
from yarl import URL

from integration.messaging.bench import QUEUE, SERVICE
from nexus_messaging import publisher as publishing
from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.publishing_channel import PublishingChannel
from nexus_messaging.topology import (
    DEAD,
    INTERNAL,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    dead_letter_queue,
)
from support.line import Line
from support.vhost import Vhost
from support.waiting import eventually

KEY = "usage.recorded.v1"


def good(number: int, size: int = 0, message_id: str | None = None) -> Publication:
    """Return a publication that the reporter's queue takes; its body begins with ``number``."""
    body = f"{number}".encode().ljust(size)
    return Publication(INTERNAL, KEY, Message(body, message_id=message_id or f"m-{number}"))


def lost(number: int, message_id: str | None = None) -> Publication:
    """Return a publication to the queue that ``publisher`` deletes."""
    message = Message(f"{number}".encode(), message_id=message_id or f"m-{number}")
    return Publication(DEAD, USAGE_OUTCOMES_QUEUE, message)


async def contents(vhost: Vhost) -> Counter[int]:
    """Take all messages from the reporter's queue; return how often each number was there."""
    found: Counter[int] = Counter()
    depth = await vhost.depth(USAGE_RECORDED_QUEUE)
    connection = await aiormq.connect(vhost.admin_url)
    channel = await connection.channel()

    async def count(message: aiormq.abc.DeliveredMessage) -> None:
        found[int(message.body)] += 1

    await channel.basic_consume(USAGE_RECORDED_QUEUE, count, no_ack=True)

    async def total() -> int:
        return found.total()

    await eventually(total, lambda number: number >= depth)
    await connection.close()
    return found


def channel_of(publisher: Publisher) -> PublishingChannel:
    """Return the channel that is open."""
    assert publisher._channel is not None
    return publisher._channel


async def until_sent(channel: PublishingChannel, number: int) -> None:
    """Wait until so many messages were written since the channel was opened."""

    async def sent() -> int:
        return channel._confirms._last

    await eventually(sent, lambda found: found >= number, every=0)


@pytest.fixture
async def publisher(own_vhost: Vhost) -> AsyncIterator[Publisher]:
    """Return a connected publisher; the queue of ``lost`` is missing."""
    await own_vhost.ask("DELETE", "queues/{vhost}/" + dead_letter_queue(USAGE_OUTCOMES_QUEUE))
    connected = await Publisher.connect(own_vhost.url(SERVICE), name=SERVICE)
    yield connected
    await connected.close()


async def test_unroutable_messages_among_many_have_the_errors(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """All others are in the queue, once each."""
    unroutable = {0, 499, 500, 2500, 2501, 4999}
    batch = [lost(n) if n in unroutable else good(n) for n in range(5000)]

    errors = await publisher.publish_all(batch)

    assert {n for n, error in enumerate(errors) if error is not None} == unroutable
    assert {type(errors[n]) for n in unroutable} == {UnroutableError}
    assert await contents(own_vhost) == Counter(n for n in range(5000) if n not in unroutable)


async def test_messages_with_one_id_have_their_own_answers(publisher: Publisher) -> None:
    """An id says nothing of which one was returned."""
    errors = await publisher.publish_all(
        [good(n, message_id="same") if n % 3 else lost(n, "same") for n in range(300)]
    )

    assert [error is None for error in errors] == [bool(n % 3) for n in range(300)]


async def test_confirmed_messages_are_in_the_queue_if_the_connection_breaks(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """It breaks within the batch: of the rest each one is an error."""
    channel = channel_of(publisher)
    assert publisher._connection is not None
    transport = publisher._connection.transport
    under_way = asyncio.create_task(publisher.publish_all([good(n) for n in range(5000)]))
    await until_sent(channel, 1000)
    transport.abort()

    errors = await under_way

    confirmed = {n for n, error in enumerate(errors) if error is None}
    assert len(confirmed) >= 500
    assert all(isinstance(error, PublishError) for error in errors[1500:])
    assert confirmed <= set(await contents(own_vhost))


async def test_large_messages_are_published_whole(own_vhost: Vhost, publisher: Publisher) -> None:
    """Two hundred of the largest: more than a write may hold, and each more than a frame."""
    errors = await publisher.publish_all([good(n, size=256 * 1024) for n in range(200)])

    assert errors == [None] * 200
    assert await contents(own_vhost) == Counter(range(200))


async def test_publishing_at_the_same_time_mixes_no_answers(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """Single messages and batches share the channel."""

    async def single(number: int) -> list[PublishError | None]:
        try:
            await publisher.publish(good(number) if number % 2 else lost(number))
        except PublishError as error:
            return [error]
        return [None]

    async def batch(begin: int) -> list[PublishError | None]:
        numbers = range(begin, begin + 100)
        return await publisher.publish_all([good(n) if n % 2 else lost(n) for n in numbers])

    work = [single(n) if n % 5 else batch(1000 * n) for n in range(1, 51)]
    answered = await asyncio.gather(*work)

    numbers = [[n] if n % 5 else list(range(1000 * n, 1000 * n + 100)) for n in range(1, 51)]
    for some, errors in zip(numbers, answered, strict=True):
        assert [error is None for error in errors] == [bool(n % 2) for n in some]
    assert await contents(own_vhost) == Counter(n for some in numbers for n in some if n % 2)


async def test_cancelled_batch_leaves_the_answers_of_the_next_in_step(
    publisher: Publisher,
) -> None:
    """The channel stays open, and the broker answers to what nobody waits for any longer."""
    for sent in (1, 500, 501):
        last = channel_of(publisher)._confirms._last
        cancelled = asyncio.create_task(publisher.publish_all([lost(n) for n in range(1000)]))
        await until_sent(channel_of(publisher), last + sent)
        cancelled.cancel()

        errors = await publisher.publish_all([good(1), lost(2), good(3)])

        assert [type(error) for error in errors] == [type(None), UnroutableError, type(None)]


async def test_refused_message_is_an_error_of_its_own(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """A queue that is full refuses; the confirms of the others stand."""
    arguments: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish"}
    async with own_vhost.channel() as channel:
        full = await channel.declare_queue("full", durable=True, arguments=arguments)
        await full.bind(INTERNAL, KEY)
        await publisher.publish(good(0))

        errors = await publisher.publish_all(
            [
                Publication(DEAD, QUEUE, Message(b"x")),
                good(1),
                Publication(DEAD, QUEUE, Message(b"y")),
            ]
        )

    assert [type(error) for error in errors] == [type(None), PublishError, type(None)]


async def test_message_that_cannot_be_encoded_is_an_error_of_its_own(
    publisher: Publisher,
) -> None:
    """A copy of an outside message may have anything in its properties."""
    long_id = good(2, message_id="x" * 256)
    long_header = Publication(INTERNAL, KEY, Message(b"3", headers={"x": "x" * 150_000}))

    errors = await publisher.publish_all([good(1), long_id, long_header, good(4)])

    assert [error is None for error in errors] == [True, False, False, True]
    assert "xx" not in f"{errors[1]} {errors[2]}"


async def test_no_more_is_sent_after_a_timeout(
    own_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blocked broker costs one timeout and one write, however much waits and comes again."""
    monkeypatch.setattr(publishing, "PUBLISH_TIMEOUT", 0.1)
    async with Line.to(URL(own_vhost.url(SERVICE))) as line:
        publisher = await Publisher.connect(str(line.url), name=SERVICE)
        line.open.clear()

        for _ in range(20):
            errors = await publisher.publish_all([good(n, size=256 * 1024) for n in range(200)])
            assert [type(error) for error in errors] == [PublishTimeoutError] * 200

        assert channel_of(publisher).write_queue.qsize() <= 1
        line.open.set()
        await eventually(lambda: publisher.publish_all([good(1)]), lambda errors: errors == [None])
        await publisher.close()
