"""Taking deliveries from the stream: over the same bytes, aiormq alone has the same results."""

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes
from pamqp.header import ContentHeader

from nexus_messaging.connecting import Connection
from nexus_messaging.deliveries import DeliveryReader
from nexus_messaging.properties import tolerate_invalid_properties
from nexus_messaging.received import Received
from support.broker_streams import CONSUMER, OTHER, TAG, UNDECODABLE, Stream, random_stream
from support.memory_broker import MemoryTransports

QUEUE = "a queue"
IDLE_ROUNDS = 20
"""Iterations of the event loop without progress, after which nothing is left to do."""

Seen = tuple[object, ...]

tolerate_invalid_properties()


@dataclass
class Results:
    """What came of a stream: the consumer's deliveries, and the frames of each channel.

    ``doubts``: how often a frame ended the fast reading.
    """

    delivered: list[Seen]
    frames: dict[int, list[FrameTypes]]
    ends: list[str]
    doubts: int = 0

    def progress(self) -> int:
        """Return a number that grows with each result."""
        return len(self.delivered) + sum(map(len, self.frames.values()))


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Name every consumer as the streams do, and do not wait for a channel that a frame ended."""
    monkeypatch.setattr("nexus_messaging.connecting.uuid4", lambda: UUID(TAG))
    monkeypatch.setattr(aiormq.Connection, "READER_CLOSE_TIMEOUT", 0)
    caplog.set_level(logging.CRITICAL, "aiormq")


@pytest.mark.parametrize(
    ("first", "cases"), [(0, 1000), pytest.param(1000, 10_000, marks=pytest.mark.long)]
)
async def test_same_bytes_give_the_same_deliveries_and_frames(first: int, cases: int) -> None:
    """Whatever the chunks, the other frames between deliveries, and the damage."""
    for seed in range(first, first + cases):
        random = Random(seed)  # noqa: S311 - cases that can be had again
        stream = random_stream(random)
        chunks = list(stream.chunks(random))

        stock = await results_of(chunks, asyncio.StreamReaderProtocol)
        fast = await results_of(chunks, DeliveryReader)

        try:
            assert_same(stream, stock, fast)
        except AssertionError as difference:
            difference.add_note(f"seed {seed}, damage: {stream.damage}")
            raise


def assert_same(stream: Stream, stock: Results, fast: Results) -> None:
    """Compare what was delivered, and all other frames that the channels were given."""
    all_made, others = without_deliveries(stock.frames[CONSUMER])
    passed_on, fast_others = without_deliveries(fast.frames[CONSUMER])
    taken = all_made[: len(all_made) - len(passed_on)]

    assert described(fast_others) == described(others)
    assert described(fast.frames[OTHER]) == described(stock.frames[OTHER])
    assert fast.ends == stock.ends
    assert fast.delivered[: len(taken)] == taken
    if stream.damage is None:
        assert fast.delivered == stock.delivered == taken
        assert fast.doubts == 0
        return
    # aiormq cancels callbacks that have not run yet when a frame ends the channel.
    assert fast.delivered[: len(stock.delivered)] == stock.delivered
    # It decodes methods, and ends the connection at one that it cannot decode.
    if stream.damage not in UNDECODABLE:
        assert len(fast.delivered) <= max(len(all_made), len(stock.delivered))


async def results_of(
    chunks: Iterable[bytes], protocol: type[asyncio.StreamReaderProtocol]
) -> Results:
    """Consume over a connection on which a broker sends ``chunks``, then ends the stream."""
    results = Results([], {}, [])
    transports = MemoryTransports(protocol)
    amqp = await aiormq.connect("amqp://memory/?heartbeat=0", transport_factory=transports)
    broker = transports.broker
    reader = broker.protocol if isinstance(broker.protocol, DeliveryReader) else None
    channels = [
        await amqp.channel(number, publisher_confirms=False) for number in (CONSUMER, OTHER)
    ]
    for channel in channels:
        assert isinstance(channel, aiormq.Channel)
        channel.getter = asyncio.get_running_loop().create_future()  # or a get-ok ends the channel
        channel.getter.set_result(None)
        results.frames[channel.number] = recorded(channel)

    def doubt() -> None:
        results.doubts += 1

    await Connection(amqp, broker, reader).consume(
        channels[0], QUEUE, lambda received: results.delivered.extend(map(seen, received)), doubt
    )
    results.frames[CONSUMER].clear()
    broker.hold_answers()

    for chunk in chunks:
        broker.send(chunk)
        if len(chunk) > 1000:
            await asyncio.sleep(0)
    await until_idle(results)
    broker.release_answers()
    await until_idle(results)
    broker.end()
    await until_idle(results)

    ended = [*(channel.closing for channel in channels), amqp.closing]
    await amqp.close()
    results.ends.extend(re.sub(" at 0x[0-9a-f]+", "", repr(each.exception())) for each in ended)
    return results


async def until_idle(results: Results) -> None:
    """Let the event loop run until it changes nothing any more."""
    before, idle = results.progress(), 0
    while idle < IDLE_ROUNDS:
        await asyncio.sleep(0)
        now = results.progress()
        before, idle = now, (idle + 1 if now == before else 0)


def recorded(channel: AbstractChannel) -> list[FrameTypes]:
    """Return the list of the frames that the connection passes to ``channel`` from now on."""
    frames: list[FrameTypes] = []
    put = channel.frames.put

    async def put_recorded(item: tuple[int, FrameTypes]) -> None:
        frames.append(item[1])
        await put(item)

    channel.frames.put = put_recorded  # type: ignore[method-assign]
    return frames


def without_deliveries(frames: Sequence[FrameTypes]) -> tuple[list[Seen], list[FrameTypes]]:
    """Separate complete deliveries of the consumer from all other frames."""
    taken: list[Seen] = []
    others: list[FrameTypes] = []
    left = list(frames)
    while left:
        method = left.pop(0)
        if not isinstance(method, commands.Basic.Deliver) or method.consumer_tag != TAG:
            others.append(method)
            if _ends_the_consumer(method):
                break
            continue
        header, bodies = _content_of(left)
        size = sum(map(len, bodies))
        if header is None or size != header.body_size:
            cut = len(bodies) == len(left) - (header is not None) and _is_less(size, header)
            return taken, others if cut else [*others, method, *left]
        del left[: 1 + len(bodies)]
        message = aiormq.abc.DeliveredMessage(method, header, b"".join(bodies), None)  # type: ignore[arg-type] # no channel is needed
        taken.append(seen(Received.of(QUEUE, message)))
    return taken, others + left


def _ends_the_consumer(method: FrameTypes) -> bool:
    if isinstance(method, commands.Basic.Cancel | commands.Basic.CancelOk):
        return method.consumer_tag == TAG
    return isinstance(method, commands.Channel.Close)


def _is_less(size: int, header: ContentHeader | None) -> bool:
    return header is None or size < header.body_size


def _content_of(frames: Sequence[FrameTypes]) -> tuple[ContentHeader | None, list[bytes]]:
    """Return the content that ``frames`` begin with, complete or not."""
    if not frames or not isinstance(header := frames[0], ContentHeader):
        return None, []
    bodies: list[bytes] = []
    for part in frames[1:]:
        if sum(map(len, bodies)) >= header.body_size or not isinstance(part, ContentBody):
            break
        bodies.append(part.value)
    return header, bodies


def seen(received: Received) -> Seen:
    """Return all that a handler can see of a delivery."""
    place = (received.tag, received.queue, received.exchange, received.redelivered)
    return (*place, received.returned, received.message, received.body, repr(received.headers))


def described(frames: Iterable[FrameTypes]) -> list[str]:
    """Return frames in a form that can be compared."""
    return [f"{frame.name} {_values(frame)}" for frame in frames]


def _values(frame: FrameTypes) -> object:
    match frame:
        case ContentHeader():
            return frame.body_size, dict(frame.properties)
        case ContentBody():
            return frame.value
        case Frame():
            return dict(frame)
    return None


async def test_frame_in_doubt_is_noted_once() -> None:
    """The reading that it ends costs time until the next connection, so a log says it."""
    of_no_kind = b"\x09\x00\x00\x00\x00\x00\x01?\xce"

    results = await results_of([of_no_kind, of_no_kind], DeliveryReader)

    assert results.doubts == 1
