"""Reads deliveries out of the bytes that the broker sends, below aiormq.

aiormq makes an object of each frame, decodes all properties, and runs a task for each delivery:
three times the processor time that recording a tool run needs. This protocol takes the frames of
one consumer's deliveries out of the stream and passes everything else on to aiormq unchanged: the
handshake, answers, heartbeats, closing, and all content that belongs to no delivery.

It takes only frames that aiormq would read in the same way. From the first frame that is in doubt,
everything is passed on, and aiormq reads the rest of the connection.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from aiormq.abc import AbstractChannel
from typing_extensions import override

from nexus_messaging.frames import (
    BODY,
    FRAME_END,
    FRAME_HEAD,
    HEADER,
    HEARTBEAT,
    METHOD,
    frame,
)
from nexus_messaging.received import Received

_MIN_FRAME: Final = FRAME_HEAD.size + 1
_KINDS: Final = frozenset((METHOD, HEADER, BODY, HEARTBEAT))

_DELIVER: Final = struct.pack(">HH", 60, 60)
_CANCEL: Final = struct.pack(">HH", 60, 30)
_CANCEL_OK: Final = struct.pack(">HH", 60, 31)
_CHANNEL_CLOSE: Final = struct.pack(">HH", 20, 40)
_AFTER_CONSUMER_TAG: Final = struct.Struct(">qBB")
"""Of a deliver method: the delivery tag, a bit, and the length of the exchange's name."""
_REDELIVERED: Final = 1

_CONTENT: Final = struct.Struct(">HHQH")
"""Of a content header: class, weight, size of the body, and which properties follow."""
_MORE_FLAGS: Final = 1

_HEARTBEAT_FRAME: Final = b"".join(frame(HEARTBEAT, 0, b""))

MAX_FRAME: Final = 1024 * 1024
"""Bytes of a frame that is waited for; RabbitMQ's own limit is 128 KiB."""

Deliver = Callable[[list[Received]], None]
"""Called with deliveries in the order of their arrival; it must not raise."""

Doubt = Callable[[], None]
"""Called once a frame was in doubt: aiormq reads the rest of the connection."""


class _DoubtError(Exception):
    """A frame is not what it should be; aiormq decides what follows."""


class DeliveryReader(asyncio.StreamReaderProtocol):
    """Hands the deliveries in each chunk of bytes over as one list, before aiormq sees the rest.

    The order matters: after the answer to ``basic.cancel``, no delivery may follow.
    """

    _channel: AbstractChannel
    _queue: str
    _deliver: Deliver

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._passes_all = False
        self._doubt: Doubt = lambda: None
        self._number: int | None = None
        self._begins = b""
        self._ends: tuple[bytes, ...] = ()
        # The incomplete frame at the end of what was received, and the bytes that complete it.
        self._rest = bytearray()
        self._wanted = 0
        # The delivery whose frames are being read: what has arrived of it, and what is missing.
        self._open: tuple[int, str, int] | None = None
        self._method = b""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._complete: list[Received] = []

    def attach(
        self,
        channel: AbstractChannel,
        consumer_tag: str,
        queue: str,
        deliver: Deliver,
        doubt: Doubt,
    ) -> None:
        """Take the deliveries of this consumer from now on, and no longer an earlier one's."""
        named = bytes([len(consumer_tag)]) + consumer_tag.encode()
        self._number, self._channel, self._queue = channel.number, channel, queue
        self._begins = _DELIVER + named
        self._ends = (_CANCEL + named, _CANCEL_OK + named, _CHANNEL_CLOSE)
        self._deliver = deliver
        self._doubt = doubt

    @override
    def data_received(self, data: bytes) -> None:
        """Hand over the deliveries in ``data`` and pass on the other frames."""
        if self._passes_all:
            super().data_received(data)
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()

        passed = self._read(data)

        if self._complete:
            complete, self._complete = self._complete, []
            self._deliver(complete)
        super().data_received(passed)

    @override
    def eof_received(self) -> bool | None:
        """Pass on an incomplete frame, so that aiormq reports it."""
        super().data_received(bytes(self._rest))
        return super().eof_received()

    def _read(self, data: bytes) -> bytes:
        """Take the frames of deliveries; return the others, up to the last complete one."""
        passed: list[bytes] = []
        passed_to = position = 0
        try:
            while len(data) - position >= _MIN_FRAME:
                kind, number, size = FRAME_HEAD.unpack_from(data, position)
                start = position + FRAME_HEAD.size
                end = start + size
                if end >= len(data):
                    break
                taken = (
                    number == self._number
                    and data[end] == FRAME_END
                    and self._take(kind, data, start, end)
                )
                if taken:
                    if passed_to < position:
                        passed.append(data[passed_to:position])
                    passed_to = end + 1
                else:
                    _require_valid(kind, size, data[end])
                position = end + 1
            self._keep(data[position:])
        except _DoubtError:
            self._doubt()
            return b"".join((*passed, data[passed_to:position], self._give_up(data[position:])))
        if not passed and 0 < passed_to == position:
            # aiormq closes a connection on which it has seen no frame for three intervals.
            return _HEARTBEAT_FRAME
        return b"".join((*passed, data[passed_to:position]))

    def _keep(self, rest: bytes) -> None:
        """Keep an incomplete frame, and note how many bytes complete it."""
        self._wanted = _MIN_FRAME
        if len(rest) >= FRAME_HEAD.size:
            kind, _, size = FRAME_HEAD.unpack_from(rest)
            _require_valid(kind, size)
            self._wanted += size
        self._rest += rest

    def _give_up(self, rest: bytes) -> bytes:
        """Pass on everything from now on; return the frames of the open delivery, and ``rest``."""
        self._passes_all = True
        if self._open is None:
            return rest
        frames = [*frame(METHOD, self._channel.number, self._method)]
        if self._header:
            frames += frame(HEADER, self._channel.number, self._header)
        for part in self._parts:
            frames += frame(BODY, self._channel.number, part)
        return b"".join((*frames, rest))

    def _take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Take a frame on the consumer's channel if it belongs to a delivery.

        Raises:
            _DoubtError: a delivery has begun, and this frame does not continue it.
        """
        if self._open is None:
            if kind == METHOD and data.startswith(self._begins, start):
                self._begin(data, start, end)
                return True
            if kind == METHOD and data.startswith(self._ends, start):
                self._number = None
            return False
        if not self._header and kind == HEADER:
            self._read_header(data[start:end])
        elif self._header and kind == BODY and start < end <= start + self._missing:
            self._parts.append(data[start:end])
            self._missing -= end - start
        else:
            raise _DoubtError
        if not self._missing:
            self._finish(*self._open)
        return True

    def _begin(self, data: bytes, start: int, end: int) -> None:
        after_tag = start + len(self._begins)
        exchange = after_tag + _AFTER_CONSUMER_TAG.size
        if exchange >= end:
            raise _DoubtError
        tag, bits, length = _AFTER_CONSUMER_TAG.unpack_from(data, after_tag)
        routing_key = exchange + length
        if routing_key >= end or routing_key + 1 + data[routing_key] != end:
            raise _DoubtError
        self._method = data[start:end]
        name = data[exchange:routing_key].decode(errors="ignore")
        self._open = (tag, name, bits & _REDELIVERED)

    def _read_header(self, header: bytes) -> None:
        if len(header) < _CONTENT.size:
            raise _DoubtError
        _, _, size, flags = _CONTENT.unpack_from(header)
        if flags & _MORE_FLAGS:
            raise _DoubtError
        self._header = header
        self._missing = size

    def _finish(self, tag: int, exchange: str, redelivered: int) -> None:
        parts = self._parts
        self._complete.append(
            Received(
                self._channel,
                tag,
                self._queue,
                exchange,
                parts[0] if len(parts) == 1 else b"".join(parts),
                self._header,
                redelivered=redelivered == _REDELIVERED,
            )
        )
        self._open = None
        self._header = b""
        parts.clear()


def _require_valid(kind: int, size: int, end: int = FRAME_END) -> None:
    sized = size == 0 if kind == HEARTBEAT else 0 < size <= MAX_FRAME
    if kind not in _KINDS or not sized or end != FRAME_END:
        raise _DoubtError
