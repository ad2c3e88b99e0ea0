"""Pauses reading from the broker while too many bytes are unsettled."""

import asyncio
from typing import Final

from nexus_messaging.unacked import UnackedDeliveries

MAX_UNACKED_BYTES: Final = 32 * 1024 * 1024
"""Bytes of unsettled message bodies at which reading from the connection pauses.

A prefetch counts messages only (https://www.rabbitmq.com/docs/consumer-prefetch): 2,000 of the
largest messages that the contract allows are half a gigabyte."""

PAUSED_READ_INTERVAL: Final = 10.0
"""Seconds. While reading is paused, the socket is read once in this interval, up to 256 KiB: a
heartbeat may be waiting, and a connection without one for 33 s is considered lost."""


class Backpressure:
    """Keeps the ``unacked`` deliveries of one connection near ``MAX_UNACKED_BYTES``."""

    def __init__(self, transport: asyncio.Transport, unacked: UnackedDeliveries) -> None:
        self._transport = transport
        self._unacked = unacked
        self._next_read: asyncio.TimerHandle | None = None

    def pause_if_full(self) -> None:
        """Pause reading if the limit is reached; called after each delivery."""
        if self._full and self._transport.is_reading() and not self._transport.is_closing():
            self._transport.pause_reading()
            if self._next_read is not None:
                self._next_read.cancel()  # otherwise every pause would add one
            loop = asyncio.get_running_loop()
            self._next_read = loop.call_later(PAUSED_READ_INTERVAL, self._read_once)

    def resume_unless_full(self) -> None:
        """Resume reading if there is room again; called after deliveries are settled."""
        if not self._full:
            self._transport.resume_reading()

    @property
    def _full(self) -> bool:
        return self._unacked.bytes >= MAX_UNACKED_BYTES

    def _read_once(self) -> None:
        self._transport.resume_reading()
        # The event loop reads in its next iteration; pausing in the second one allows one read.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self.pause_if_full)
