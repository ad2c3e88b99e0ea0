"""Events that wait in memory, bounded by bytes."""

import threading
from collections.abc import Iterator, Sequence
from typing import Final

from nexus_publisher.entries import Entry, Waiting

ENTRY_BYTES: Final = 600
"""Bytes that an entry takes beside its body: measured on CPython 3.11, rounded up."""


class Memory:
    """Events in the order in which they were recorded; used by every thread of the host."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[int, Entry] = {}  # by the identity of the entry, in their order
        self._closed = False
        # A signal handler that interrupts a holder may use it again. `with` alone is never left
        # locked by a KeyboardInterrupt, as `acquire` may be.
        self._lock = threading.RLock()

    @property
    def closed(self) -> bool:
        """Whether it takes no more entries."""
        return self._closed

    def add(self, entry: Entry) -> bool:
        """Add an entry; return whether there was room for it."""
        with self._lock:
            size = len(entry.body) + ENTRY_BYTES
            if self._closed or self._bytes + size > self._max_bytes:
                return False
            self._bytes += size
            self._entries[id(entry)] = entry
            return True

    def types(self) -> Sequence[str]:
        """Return the types of which events wait."""
        return sorted({entry.type for entry in self.snapshot()})

    def read(self, event_type: str | None, events: int, size: int) -> list[Entry]:
        """Return the oldest of a type, or of all types: ``events`` of them and ``size`` bytes."""
        wanted = (each for each in self.snapshot() if event_type in {None, each.type})
        return portion(wanted, events, size)

    def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries that were returned by ``read``, unless they were moved meanwhile."""
        with self._lock:
            for entry in entries:
                if self._entries.pop(id(entry), None) is not None:
                    self._bytes -= len(entry.body) + ENTRY_BYTES

    def close(self) -> list[Entry]:
        """Take no more entries; return those that are left."""
        with self._lock:
            self._closed = True
            left = list(self._entries.values())
            self._entries.clear()
            self._bytes = 0
            return left

    def waiting(self) -> Waiting:
        """Return how many events wait and since when."""
        entries = self.snapshot()
        return Waiting(len(entries), entries[0].recorded_at if entries else None)

    def snapshot(self) -> list[Entry]:
        """Return what waits."""
        with self._lock:
            return list(self._entries.values())


def portion(entries: Iterator[Entry], events: int, size: int) -> list[Entry]:
    """Return the first of ``entries``: up to ``events`` and ``size`` bytes, at least one."""
    taken: list[Entry] = []
    for entry in entries:
        size -= len(entry.body)
        if taken and size < 0:
            break
        taken.append(entry)
        if len(taken) == events:
            break
    return taken
