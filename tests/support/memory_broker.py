"""A broker in memory: aiormq connects to it without a socket, and reads the bytes it is given."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiormq
from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.header import ProtocolHeader
from typing_extensions import override
from yarl import URL

FRAME_MAX: Final = 131072
"""RabbitMQ's default."""


class MemoryBroker(asyncio.Transport):
    """Answers what a connecting and consuming client asks, and sends the bytes of a test."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._received = b""
        self._closing = False
        self._ended = False
        self._answers: list[bytes] = []
        self._held = False

    def send(self, data: bytes) -> None:
        """Send ``data`` as one chunk."""
        if not self._closing and not self._ended:
            self.protocol.data_received(data)

    def hold_answers(self) -> None:
        """Answer later: no answer may come between two parts of a frame that a test sends."""
        self._held = True

    def release_answers(self) -> None:
        """Send the answers that were held, and answer at once from now on."""
        self._held = False
        answers, self._answers = self._answers, []
        for answer in answers:
            self.send(answer)

    def end(self) -> None:
        """End the stream."""
        self._ended = True
        if not self._closing:
            self.protocol.eof_received()

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._received += data
        while self._received:
            size, channel, asked = frame.unmarshal(self._received)
            self._received = self._received[size:]
            answer = _answer(asked)
            if answer is not None:
                self._answers.append(frame.marshal(answer, channel))
        if not self._held:
            asyncio.get_running_loop().call_soon(self.release_answers)

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def is_reading(self) -> bool:
        return True

    @override
    def pause_reading(self) -> None:
        """Go on all the same: a test sends little."""

    @override
    def resume_reading(self) -> None:
        """Go on."""

    @override
    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    @override
    def abort(self) -> None:
        self.close()


class MemoryTransports(aiormq.TransportFactory):
    """Opens transports to a broker in memory, with a ``protocol`` above each."""

    broker: MemoryBroker

    def __init__(self, protocol: type[asyncio.StreamReaderProtocol]) -> None:
        self._protocol = protocol

    @override
    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = self._protocol(reader, loop=loop)
        self.broker = MemoryBroker(protocol)
        protocol.connection_made(self.broker)
        return reader, asyncio.StreamWriter(self.broker, protocol, reader, loop)


_ANSWERS: Final[Mapping[type, Frame]] = {
    ProtocolHeader: commands.Connection.Start(
        server_properties={"capabilities": {"publisher_confirms": True}}
    ),
    commands.Connection.StartOk: commands.Connection.Tune(100, FRAME_MAX, 0),
    commands.Connection.Open: commands.Connection.OpenOk(),
    commands.Connection.Close: commands.Connection.CloseOk(),
    commands.Channel.Open: commands.Channel.OpenOk(),
    commands.Channel.Close: commands.Channel.CloseOk(),
}


def _answer(asked: object) -> Frame | None:
    if isinstance(asked, commands.Basic.Consume):
        return commands.Basic.ConsumeOk(asked.consumer_tag)
    return _ANSWERS.get(type(asked))
