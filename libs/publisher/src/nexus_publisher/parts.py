"""What a publisher has in one process: memory, spool, the delivering thread, counters."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nexus_publisher.counters import Counters, Stats
from nexus_publisher.delivery import Delivery
from nexus_publisher.entries import Entry, Waiting
from nexus_publisher.log import log
from nexus_publisher.losses import Losses, OnDrop
from nexus_publisher.memory import Memory
from nexus_publisher.results import Dropped, DropReason, InMemory, Stored
from nexus_publisher.spool import Spool
from nexus_publisher.spool_file import SpoolUnavailableError, Synchronous
from nexus_publisher.transport import Transport


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of a publisher that its parts are made from."""

    transport: Transport
    spool: Path | None
    spool_bytes: int
    memory_bytes: int
    synchronous: Synchronous
    on_drop: OnDrop | None


class Parts:
    """The parts of one process; the child of a fork makes its own.

    ``with_spool`` is false in a child that may not use the spool's files.
    """

    def __init__(self, settings: Settings, *, with_spool: bool = True) -> None:
        self.counters = Counters()
        self.losses = Losses(self.counters, settings.on_drop)
        self.memory = Memory(settings.memory_bytes)
        self.spool: Spool | None = None
        if with_spool and settings.spool is not None:
            self.spool = Spool(
                settings.spool,
                max_bytes=settings.spool_bytes,
                synchronous=settings.synchronous,
                on_set_aside=self._note_set_aside,
            )
        self.delivery = Delivery(
            settings.transport, self.memory, self.spool, self.counters, self._refuse
        )

    def keep(self, entry: Entry, *, left_out: bool) -> Stored | InMemory | Dropped:
        """Store an entry on disk, or else in memory; a dropped one is reported."""
        cause = "the memory is full"
        if self.spool is not None:
            try:
                self.spool.add(entry)
            except SpoolUnavailableError as error:
                cause = f"the spool can't be written ({error}) and the memory is full"
            else:
                self.counters.count_recorded(left_out=left_out)
                return Stored(entry.event_id, left_out)
        if self.memory.add(entry):
            self.counters.count_recorded(left_out=left_out)
            return InMemory(entry.event_id, left_out)
        if self.memory.closed:
            return self._drop(entry, DropReason.CLOSED, "the publisher was closed")
        return self._drop(entry, DropReason.FULL, cause)

    def stats(self) -> Stats:
        """Return the counters and what waits."""
        counters, in_memory, on_disk = self.counters, self.memory.waiting(), self._on_disk()
        since = [each.oldest_at for each in (in_memory, on_disk) if each and each.oldest_at]
        return Stats(
            recorded=counters.recorded,
            confirmed=counters.confirmed,
            dropped={reason: counters.dropped[reason] for reason in DropReason},
            in_memory=in_memory.events,
            spooled=None if on_disk is None else on_disk.events,
            spool_bytes=0 if self.spool is None else self.spool.size(),
            oldest_seconds=max(0.0, time.time() - min(since)) if since else None,
            metadata_left_out=counters.metadata_left_out,
            spools_set_aside=counters.spools_set_aside,
        )

    def drain(self, seconds: float) -> None:
        """Send or store what is in memory, for ``seconds`` at most and a little longer."""
        self.delivery.drain(seconds)
        self._not_stored(self.memory.snapshot())

    def close(self, seconds: float) -> None:
        """Drain for ``seconds`` at most, and end; report what is still in memory as dropped."""
        self.delivery.drain(seconds)
        self.delivery.stop()
        for entry in self._not_stored(self.memory.close()):
            self._drop(entry, DropReason.CLOSED, "the publisher was closed before it was sent")
        if self.spool is not None:
            self.spool.close()

    def _not_stored(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Store entries that the thread did not: a look-up of a host name may hold it up."""
        with suppress(SpoolUnavailableError):
            if entries and self.spool is not None:
                self.spool.add_all(entries)
                self.memory.remove(entries)
                return ()
        return entries

    def _on_disk(self) -> Waiting | None:
        try:
            return Waiting() if self.spool is None else self.spool.waiting()
        except SpoolUnavailableError:
            return None

    def _refuse(self, entry: Entry, rule: str) -> None:
        with suppress(BaseException):  # of on_drop, which must not end the thread that delivers
            self._drop(entry, DropReason.REFUSED, rule)

    def _drop(self, entry: Entry, reason: DropReason, detail: str) -> Dropped:
        return self.losses.report(Dropped(entry.event_id, entry.type, reason, detail, entry.body))

    def _note_set_aside(self, path: Path) -> None:
        self.counters.count_spool_set_aside()
        log(logging.ERROR, "the spool was damaged and is set aside as %s", path)
