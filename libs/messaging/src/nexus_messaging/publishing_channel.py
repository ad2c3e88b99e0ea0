"""An AMQP channel that publishes many messages in one write, and reads their confirms.

aiormq publishes one message at a time, and matches a returned message by its id alone. What is
taken from it here is its channel's life: opening, frames, closing.
"""

import asyncio
from collections.abc import Sequence

from aiormq.abc import AbstractConnection, ChannelFrame, ConfirmationFrameType
from aiormq.channel import Channel
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from typing_extensions import override

from nexus_messaging.confirms import Answers, Confirms
from nexus_messaging.errors import PublishError, UnroutableError
from nexus_messaging.publication import Publication, mark_of

CHANNEL_NUMBER = 1
"""The connection of a publisher has no other channel."""


class PublishingChannel(Channel):
    """Publishes in batches. Only one write is on its way to the socket at a time.

    So a broker that stops reading, as in an alarm, leaves one batch in memory, however many
    publishers give up waiting and come again.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        super().__init__(connection, CHANNEL_NUMBER)
        self._confirms = Confirms()
        self._writing = asyncio.Lock()
        self._drained = self.loop.create_future()
        self._drained.set_result(None)

    @classmethod
    async def opened_on(cls, connection: AbstractConnection) -> "PublishingChannel":
        """Open the channel on a new connection, with confirms."""
        channel = cls(connection)
        connection.channels[CHANNEL_NUMBER] = channel
        await channel.open()
        return channel

    def answers(self, number: int) -> Answers:
        """Return a place for the answers to ``number`` publications.

        If the channel closes, ``complete`` raises the cause.
        """
        return Answers(number, self.create_future())

    async def publish(self, publications: Sequence[Publication], answers: Answers) -> None:
        """Publish all in one write, and wait until each has its answer.

        Whatever ends the wait, ``answers`` holds what was answered until then.

        Raises:
            Exception: the channel was closed.
        """
        try:
            async with self._writing:
                await asyncio.wait({self._drained})  # its publisher may have been cancelled
                self._drained.result()
                await self._write(publications, answers)
                await asyncio.wait({self._drained})
            await answers.complete
        finally:
            answers.complete.cancel()

    async def _write(self, publications: Sequence[Publication], answers: Answers) -> None:
        frames: list[bytes] = []
        sent: list[tuple[int, int]] = []
        for place, publication in enumerate(publications):
            try:
                its_frames = list(publication.frames(self.number, self.max_content_size))
            except Exception as error:  # noqa: BLE001 - a value from a message of another
                answers.errors[place] = PublishError(f"not sent: {type(error).__name__}")
                answers.answer(place)
            else:
                frames += its_frames
                sent.append((place, publication.mark))

        if sent:
            drained = self.create_future()
            try:
                await self.write_queue.put(
                    ChannelFrame(b"".join(frames), should_close=False, drain_future=drained)
                )
            except BaseException:
                drained.cancel()
                raise
            # Nothing else ran since the frames were queued, so the numbers are the broker's.
            self._drained = drained
            for place, mark in sent:
                self._confirms.expect(answers, place, mark)

    @override
    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        refused = not isinstance(frame, Basic.Ack)
        multiple = bool(getattr(frame, "multiple", False))
        self._confirms.confirmed(frame.delivery_tag or 0, multiple=multiple, refused=refused)

    @override
    async def _on_return_frame(self, frame: Basic.Return) -> None:
        header = await self._get_frame()
        assert isinstance(header, ContentHeader)
        content = await self._read_content(frame, header)
        exchange, key = frame.exchange or "", frame.routing_key or ""
        mark = mark_of(exchange, key, header.properties.message_id, content.body)
        self._confirms.returned(mark, UnroutableError(f"no queue takes {key!r} from {exchange!r}"))
