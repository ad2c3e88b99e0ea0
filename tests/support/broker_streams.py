"""Random streams of bytes from a broker to a consumer, valid or damaged in one place."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

from pamqp import body, commands, frame
from pamqp.common import FieldTable
from pamqp.heartbeat import Heartbeat

from support.memory_broker import FRAME_MAX

CONSUMER, OTHER = 1, 2
"""The channel whose deliveries are taken from the stream, and one whose are not."""

TAG: Final = UUID(int=7).hex
OTHER_TAG: Final = "another"

CUT: Final = "end of the stream"
UNDECODABLE: Final = ("unknown method", "arguments cut")

END: Final = b"\xce"
CHUNKS: Final = (1, 2, 7, 8, 100, 1460, 4096, 65536)
SMALL: Final = 3000
"""Bytes of a stream that may be sent in chunks of a few bytes."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The frames of each channel, interleaved; ``damage`` names what is wrong, if anything is."""

    frames: tuple[bytes, ...]
    damage: str | None

    def chunks(self, random: Random) -> Iterator[bytes]:
        """Cut the stream anywhere."""
        data = b"".join(self.frames)
        sizes = [size for size in CHUNKS if len(data) < SMALL or size > CHUNKS[3]]
        size, varied = random.choice(sizes), random.random() < 0.5
        position = 0
        while position < len(data):
            step = random.randint(1, 2 * size) if varied else size
            yield data[position : position + step]
            position += step


def random_stream(random: Random) -> Stream:
    """Return a stream; a third of them are damaged."""
    lanes = {
        CONSUMER: _contents(random, CONSUMER, TAG),
        OTHER: _contents(random, OTHER, OTHER_TAG),
        0: [[frame.marshal(Heartbeat(), 0)] for _ in range(random.randint(0, 2))],
    }
    damage = random.choice(sorted(DAMAGES)) if random.random() < 1 / 3 else None
    if damage is not None:
        lane = lanes[CONSUMER]
        lane.insert(random.randint(0, len(lane)), DAMAGES[damage](random))
    frames = list(_interleaved(random, lanes))
    if damage == CUT and frames:
        frames[-1] = frames[-1][: -random.randint(1, len(frames[-1]) - 1)]
    return Stream(tuple(frames), damage)


def _interleaved(random: Random, lanes: dict[int, list[list[bytes]]]) -> Iterator[bytes]:
    """Mix the channels' frames; those of one channel keep their order."""
    left = [[each for content in lane for each in content] for lane in lanes.values()]
    while left := [lane for lane in left if lane]:
        lane = random.choice(left)
        for _ in range(min(len(lane), random.choice([1, 1, 3, 20]))):
            yield lane.pop(0)


def _contents(random: Random, channel: int, tag: str) -> list[list[bytes]]:
    number = random.choice([0, 1, 3, 10, 30])
    return [_content(random, channel, tag, each + 1) for each in range(number)]


def _content(random: Random, channel: int, tag: str, delivery_tag: int) -> list[bytes]:
    """Return the frames of a delivery, mostly; else of something that is none of the consumer."""
    exchange = random.choice(["events", "retry.return", "", "a" * 127])
    redelivered = random.random() < 0.2
    key = random.choice(["tool.executed.v1", "", "k" * 255])
    deliver = commands.Basic.Deliver(tag, delivery_tag, redelivered, exchange, key)
    match random.random():
        case chance if chance < 0.8:
            method = deliver
        case chance if chance < 0.84:
            deliver.consumer_tag = "unknown"
            method = deliver
        case chance if chance < 0.88:
            return _with_content(random, channel, commands.Basic.Return(312, "", exchange, key))
        case chance if chance < 0.92:
            got = commands.Basic.GetOk(delivery_tag, redelivered, exchange, key, 7)
            return _with_content(random, channel, got)
        case chance if chance < 0.96:
            return [frame.marshal(commands.Basic.Ack(delivery_tag), channel)]
        case _:
            cancel = commands.Basic.Cancel(tag, True) if chance < 0.97 else None
            return [frame.marshal(cancel or commands.Basic.QosOk(), channel)]
    return _with_content(random, channel, method)


def _with_content(random: Random, channel: int, method: frame.FrameTypes) -> list[bytes]:
    size = random.choice([0, 1, 20, 300, 1024])
    if random.random() < 0.01:
        size = random.randint(1, 256 * 1024)
    data = random.randbytes(size)
    largest = random.choice([FRAME_MAX - 8, FRAME_MAX - 8, max(1, size // 3)])
    parts = [data[at : at + largest] for at in range(0, size, largest)]
    return [
        frame.marshal(method, channel),
        _raw(2, channel, struct.pack(">HHQ", 60, 0, size) + _properties(random)),
        *(frame.marshal(body.ContentBody(part), channel) for part in parts),
    ]


def _properties(random: Random) -> bytes:
    """Return properties on the wire; some have values that a strict client refuses."""
    stamp = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=random.randint(0, 10**6))
    headers: FieldTable = {
        "x-delivery-count": random.randint(0, 20),
        "nexus-attempt": 2,
        "who": "é",
    }
    sent = commands.Basic.Properties(
        content_type=random.choice(["application/json", ""]),
        headers=random.choice([headers, {}]),
        delivery_mode=2,
        message_id=f"{random.getrandbits(64):x}",
        timestamp=random.choice([stamp, None]),
        message_type="tool.executed.v1",
    )
    return random.choice(STRANGE) if random.random() < 0.1 else sent.marshal()


STRANGE: Final = (
    b"\0\0",
    struct.pack(">HQ", 1 << 6, 2**63),  # a time beyond every clock
    struct.pack(">HB", 1 << 15, 3) + b"\xff\xfe\xfd",  # a content type that is not UTF-8
    struct.pack(">HI", 1 << 13, 5) + b"noise",  # a table of noise
    struct.pack(">HI", 1 << 13, 5) + b"no",  # one that ends early
    struct.pack(">HB", 1 << 7, 200) + b"short",  # a message id that ends early
    struct.pack(">H", 1 << 7),  # one that is not there
    struct.pack(">H", 1 << 12),  # a delivery mode that is not there
    struct.pack(">HHB", 1 << 6, 1, 1),  # a time that ends early
)


def _raw(kind: int, channel: int, payload: bytes, end: bytes = END) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def _delivered(size: int, *bodies: bytes, flags: bytes = b"\0\0") -> list[bytes]:
    """Return a delivery whose header states ``size``, which may not be that of its bodies."""
    method = commands.Basic.Deliver(TAG, 99, False, "events", "key")
    return [
        frame.marshal(method, CONSUMER),
        _raw(2, CONSUMER, struct.pack(">HHQ", 60, 0, size) + flags),
        *(_raw(3, CONSUMER, each) for each in bodies),
    ]


def _arguments_cut(random: Random) -> list[bytes]:
    method = frame.marshal(commands.Basic.Deliver(TAG, 99, False, "events", "key"), CONSUMER)
    return [_raw(1, CONSUMER, method[7 : random.randint(8, len(method) - 2)])]


DAMAGES: Final[dict[str, Callable[[Random], list[bytes]]]] = {
    "end byte": lambda _: [*_delivered(3)[:2], _raw(3, CONSUMER, b"abc", b"\0")],
    "end byte of a method": lambda _: [_raw(1, CONSUMER, b"\0\x3c\0\x3c", b"\0")],
    "kind": lambda random: [_raw(random.choice([0, 4, 5, 200]), OTHER, b"abc")],
    "kind and size": lambda _: [b"AMQP\0\0\x09\x01"],
    "size of nothing": lambda random: [_raw(random.choice([1, 2, 3]), CONSUMER, b"")],
    "heartbeat with a payload": lambda _: [_raw(8, 0, b"abc")],
    "body too long": lambda _: _delivered(3, b"ab", b"cd"),
    "body too short": lambda _: _delivered(5, b"ab"),
    "empty body": lambda _: [*_delivered(3), _raw(3, CONSUMER, b""), _raw(3, CONSUMER, b"abc")],
    "no header": lambda _: _delivered(3)[:1],
    "two headers": lambda _: [*_delivered(3), *_delivered(3, b"abc")[1:]],
    "header cut": lambda random: [
        _delivered(3)[0],
        _raw(2, CONSUMER, b"\0\x3c\0\0" + random.randbytes(random.randint(0, 9))),
    ],
    "more flags": lambda _: _delivered(3, b"abc", flags=b"\0\1\0\0"),
    "flags cut": lambda _: _delivered(3, b"abc", flags=b"\0\1"),
    "method in a delivery": lambda _: [
        *_delivered(3),
        frame.marshal(commands.Basic.QosOk(), CONSUMER),
        _raw(3, CONSUMER, b"abc"),
    ],
    "content of nothing": lambda _: _delivered(3, b"abc")[1:],
    "channel closed": lambda _: [frame.marshal(commands.Channel.Close(406, "no", 0, 0), CONSUMER)],
    CUT: lambda _: [],
    UNDECODABLE[0]: lambda random: [_raw(1, random.choice([CONSUMER, OTHER]), b"\0\x63\0\x63")],
    UNDECODABLE[1]: _arguments_cut,
}
