"""Wakes the loop when a transaction has committed an event, by PostgreSQL's LISTEN.

A lost notification delays an event until the next poll.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from nexus_database import DatabaseUnavailableError
from nexus_database.connecting import Connector
from nexus_database.faults import FAULTS
from nexus_messaging.backoff import Backoff

CHANNEL: Final = "metering_outbox"

PROBE_EVERY: Final = 30.0
"""Seconds between two probes of the session: a lost server closes no connection."""

PROBE_SECONDS: Final = 5.0

FIRST_PAUSE: Final = 0.5
MAX_PAUSE: Final = 10.0
"""Seconds until the session is opened again: the relay looks for rows by itself meanwhile."""


class Listener:
    """One session that listens, and is opened again whenever it is lost."""

    def __init__(self, connector: Connector, wake: Callable[[], None]) -> None:
        self._connector = connector
        self._wake = wake
        self._backoff = Backoff(FIRST_PAUSE, MAX_PAUSE)

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except (DatabaseUnavailableError, *FAULTS):
                await self._backoff.wait()

    async def _listen(self) -> None:
        """Listen until the session fails; wake once for what was committed before it began."""
        session = await self._connector.connect()
        lost = asyncio.Event()
        try:
            session.add_termination_listener(lambda _session: lost.set())
            await session.add_listener(CHANNEL, lambda *_: self._wake())
            self._backoff.reset()
            self._wake()
            while not lost.is_set():
                await self._probe_later(lost)
                await session.execute("SELECT 1", timeout=PROBE_SECONDS)
        finally:
            session.terminate()

    async def _probe_later(self, lost: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(PROBE_EVERY):
                await lost.wait()
        except TimeoutError:
            return
