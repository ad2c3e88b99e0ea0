"""Publishing: a return means that the message is in a queue, an error that it may not be."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiormq
import pytest
from aio_pika.abc import DeliveryMode
from yarl import URL

from integration.messaging.bench import QUEUE, SERVICE, close_connections
from nexus_messaging import publisher as publishing
from nexus_messaging.errors import PublishError, PublishTimeoutError, UnroutableError
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
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
GOOD = Publication(INTERNAL, KEY, Message(b"good", message_id="m-1"))
REFUSED = Publication(INTERNAL, "customer.provisioned.v1", Message(b"not ours"))


@pytest.fixture
async def publisher(own_vhost: Vhost) -> AsyncIterator[Publisher]:
    """Return a connected publisher."""
    connected = await Publisher.connect(own_vhost.url(SERVICE), name=SERVICE)
    yield connected
    await connected.close()


async def test_a_published_message_is_in_the_queue_with_all_it_had(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """Persistent, with its id, type, content type, time and headers."""
    message = Message(
        b"\x00\xff",
        message_id="m-1",
        type=KEY,
        timestamp=datetime(2026, 3, 1, tzinfo=UTC),
        headers={"nexus-attempt": 2},
    )

    await publisher.publish(Publication(DEAD, QUEUE, message))

    (got,) = await own_vhost.dead_letters(QUEUE)
    assert got.delivery_mode == DeliveryMode.PERSISTENT
    assert (got.body, got.message_id, got.type) == (b"\x00\xff", "m-1", KEY)
    assert (got.content_type, got.timestamp) == (message.content_type, message.timestamp)
    assert got.headers["nexus-attempt"] == 2


async def test_a_message_that_no_queue_takes_is_an_error(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """A missing binding must not swallow money, and whoever watches failures sees it as well."""
    seen: list[PublishError] = []
    publisher.watch_failures(seen.append)
    await own_vhost.ask("DELETE", "queues/{vhost}/" + USAGE_RECORDED_QUEUE)

    with pytest.raises(UnroutableError, match=r"usage\.recorded\.v1"):
        await publisher.publish(GOOD)

    assert [type(each) for each in seen] == [UnroutableError]


async def test_a_refused_message_does_not_stop_the_next_ones(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """The broker closes the channel on a refusal; it is open again soon."""
    with pytest.raises(PublishError):
        await publisher.publish(REFUSED)

    await eventually(lambda: attempt(publisher), lambda error: error is None)
    assert await own_vhost.depth(USAGE_RECORDED_QUEUE) == 1


async def attempt(publisher: Publisher) -> PublishError | None:
    """Publish a good message and return what went wrong."""
    (error,) = await publisher.publish_all([GOOD])
    return error


async def test_many_are_answered_one_by_one(own_vhost: Vhost, publisher: Publisher) -> None:
    """Each publication has its own answer, in order, however many there are at once."""
    await own_vhost.ask("DELETE", "queues/{vhost}/" + dead_letter_queue(USAGE_OUTCOMES_QUEUE))
    unroutable = Publication(DEAD, USAGE_OUTCOMES_QUEUE, Message(b"x", message_id="m-2"))

    errors = await publisher.publish_all([GOOD, unroutable, *[GOOD] * 500])

    assert [index for index, error in enumerate(errors) if error] == [1]
    assert isinstance(errors[1], UnroutableError)
    assert await own_vhost.depth(USAGE_RECORDED_QUEUE) == 501


async def test_each_unroutable_message_of_many_with_one_id_is_an_error(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """A repetition of an unroutable message never counts as confirmed."""
    await own_vhost.ask("DELETE", "queues/{vhost}/" + dead_letter_queue(USAGE_OUTCOMES_QUEUE))
    unroutable = Publication(DEAD, USAGE_OUTCOMES_QUEUE, Message(b"x", message_id="m-3"))

    errors = await publisher.publish_all([unroutable] * 20)

    assert [type(error) for error in errors] == [UnroutableError] * 20


async def test_a_lost_connection_comes_back_by_itself(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """Publishing fails while it is away, at once or within its timeout, and then succeeds."""
    await publisher.publish(GOOD)
    await close_connections(own_vhost)

    await eventually(lambda: attempt(publisher), lambda error: error is None)
    assert publisher.connected


async def test_a_connection_that_got_stuck_is_an_error_and_no_cancellation(
    publisher: Publisher,
) -> None:
    """The client library cancels its own reader; the publishing task must not end by it."""
    assert publisher._channel is not None
    connection = publisher._channel.connection
    assert isinstance(connection, aiormq.Connection)
    under_way = asyncio.create_task(publisher.publish_all([GOOD] * 300))
    await asyncio.sleep(0)
    connection._reader_task.cancel()  # as missed heartbeats do

    errors = await under_way

    assert any(isinstance(error, PublishError) for error in errors)
    await eventually(lambda: attempt(publisher), lambda error: error is None)


async def test_a_silent_broker_is_a_timeout(
    own_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an alarm nothing confirms and nothing fails: the timeout ends the wait."""
    monkeypatch.setattr(publishing, "PUBLISH_TIMEOUT", 0.3)
    async with Line.to(URL(own_vhost.url(SERVICE))) as line:
        publisher = await Publisher.connect(str(line.url), name=SERVICE)
        await publisher.publish(GOOD)
        line.open.clear()

        with pytest.raises(PublishTimeoutError):
            await publisher.publish(GOOD)

        line.open.set()
        await eventually(lambda: attempt(publisher), lambda error: error is None)
        await publisher.close()


async def test_errors_of_a_silent_broker_hold_no_copy_of_the_body(
    own_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller keeps them while it repeats; 66 of 512 KiB made 0.3 GB within 40 seconds."""
    monkeypatch.setattr(publishing, "PUBLISH_TIMEOUT", 0.3)
    async with Line.to(URL(own_vhost.url(SERVICE))) as line:
        publisher = await Publisher.connect(str(line.url), name=SERVICE)
        line.open.clear()

        [error] = await publisher.publish_all([GOOD])

        assert isinstance(error, PublishTimeoutError)
        assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)
        line.open.set()
        await publisher.close()


async def test_no_broker_and_wrong_credentials_are_told_without_the_password(
    own_vhost: Vhost,
) -> None:
    """Both are publish errors that may be logged."""
    wrong = own_vhost.url(SERVICE).replace(own_vhost.password, "s3cret")
    for url in (wrong, "amqp://usage-ingest:s3cret@127.0.0.1:1/x"):
        with pytest.raises(PublishError) as caught:
            await Publisher.connect(url, name=SERVICE)

        assert "s3cret" not in repr(caught.value)
        assert caught.value.__suppress_context__


async def test_a_dead_letter_goes_where_its_queue_name_says(
    own_vhost: Vhost, publisher: Publisher
) -> None:
    """A service may park what came from its own queues, and nothing else."""
    await publisher.publish(Publication(DEAD, QUEUE, Message(b"x")))
    with pytest.raises(PublishError):
        await publisher.publish(Publication(DEAD, USAGE_RECORDED_QUEUE, Message(b"x")))

    assert await own_vhost.depth(dead_letter_queue(QUEUE)) == 1
