"""The spool: events on disk, shared by the processes of a host, one of which delivers them."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from typing_extensions import override

from nexus_publisher.entries import Entry, Store, Waiting
from nexus_publisher.file_locks import try_lock
from nexus_publisher.memory import portion
from nexus_publisher.spool_file import SpoolFile, SpoolUnavailableError, Synchronous

CALLER_SECONDS: Final = 0.02
"""How long a call of the host waits for another writer, twice at most."""

DELIVERY_SECONDS: Final = 1.0
"""How long the thread that delivers waits for another writer."""

_INSERT: Final = "INSERT INTO events (event_id, type, body, recorded_at) VALUES (?, ?, ?, ?)"
_READ: Final = "SELECT row, event_id, body, recorded_at FROM events WHERE type = ? ORDER BY row"


class Spool(Store):
    """Events on disk. Callers of the host only add; all else is the delivering thread's."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        synchronous: Synchronous,
        on_set_aside: Callable[[Path], None],
    ) -> None:
        self._folder = folder
        self._adding, self._delivering = (
            SpoolFile(
                folder,
                max_bytes=max_bytes,
                synchronous=synchronous,
                busy_seconds=seconds,
                on_set_aside=on_set_aside,
            )
            for seconds in (CALLER_SECONDS, DELIVERY_SECONDS)
        )
        self._lock: int | None = None
        self._unremoved: set[tuple[int, bytes]] = set()

    def open(self) -> None:
        """Open the file, so that no call of the host has to; if that fails, a later use does."""
        with suppress(SpoolUnavailableError):
            self._delivering.run(lambda _: None)
            self._adding.run(lambda _: None)

    def add(self, entry: Entry) -> None:
        """Store an entry; when this returns, a kill of the process does not lose it.

        Raises:
            SpoolUnavailableError: it is not stored.
        """
        self._adding.run(lambda connection: connection.execute(_INSERT, _columns(entry)))

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Store entries that had to wait in memory, all or none.

        Raises:
            SpoolUnavailableError: none is stored.
        """

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, map(_columns, entries))
            connection.execute("COMMIT")

        self._delivering.run(insert)

    def lead(self) -> bool:
        """Return whether this process delivers for all; the kernel ends that with the process."""
        if self._lock is None:
            with suppress(OSError):
                self._lock = try_lock(self._folder / "delivering.lock")
        return self._lock is not None

    @override
    def types(self) -> Sequence[str]:
        def distinct(connection: sqlite3.Connection) -> list[str]:
            found: list[str] = []
            query = "SELECT min(type) FROM events WHERE type > ?"
            while (row := connection.execute(query, (found[-1] if found else "",)).fetchone())[0]:
                found.append(row[0])
            return found

        return self._delivering.run(distinct)

    @override
    def read(self, event_type: str, events: int, size: int) -> list[Entry]:
        def select(connection: sqlite3.Connection) -> list[Entry]:
            rows = connection.execute(_READ, (event_type,))
            return portion(self._entries(event_type, rows), events, size)

        return self._delivering.run(select)

    def _entries(self, event_type: str, rows: sqlite3.Cursor) -> Iterator[Entry]:
        for row, event_id, body, recorded_at in rows:
            if (row, event_id) not in self._unremoved:
                yield Entry(UUID(bytes=event_id), event_type, body, recorded_at, row)

    @override
    def remove(self, entries: Sequence[Entry]) -> None:
        """Delete entries. What a full disk keeps from being deleted is not read again either.

        A row is deleted only if it has this event: the file may be another since it was read.
        """
        self._unremoved |= {(each.row, each.event_id.bytes) for each in entries if each.row}
        gone = sorted(self._unremoved)

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM events WHERE row = ? AND event_id = ?", gone)
            connection.execute("COMMIT")

        self._delivering.run(delete)
        self._unremoved.clear()

    def waiting(self) -> Waiting:
        """Return how many events are on disk and since when.

        Raises:
            SpoolUnavailableError: it can't be read.
        """

        def count(connection: sqlite3.Connection) -> Waiting:
            [events] = connection.execute("SELECT count(*) FROM events").fetchone()
            oldest = connection.execute("SELECT recorded_at FROM events ORDER BY row LIMIT 1")
            first = oldest.fetchone()
            return Waiting(max(0, events - len(self._unremoved)), first[0] if first else None)

        return self._delivering.run(count)

    def size(self) -> int:
        """Return the bytes of the file and its log on disk."""
        path = self._delivering.path or self._adding.path
        files = [Path(f"{path}{ending}") for ending in ("", "-wal")] if path else []
        return sum(file.stat().st_size for file in files if file.exists())

    def checkpoint(self) -> None:
        """Write the log to the disk: after that, a power cut does not lose what was stored."""
        self._delivering.checkpoint()

    def suspend(self, seconds: float) -> bool:
        """Close all connections before a fork; return whether a child may use the spool.

        SQLite's locks belong to a process. A child that inherits a connection takes its parent's
        locks for its own (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_).
        """
        if not self._adding.suspend(seconds):
            return False
        if not self._delivering.suspend(seconds):
            self._adding.resume()
            return False
        return True

    def resume(self) -> None:
        """Use the spool again after ``suspend``."""
        self._delivering.resume()
        self._adding.resume()

    def abandon(self) -> None:
        """Close, in a child, the copy of the lock by which its parent delivers."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        """Let another process deliver, and close the files."""
        self.abandon()
        self._delivering.close()
        self._adding.close()


def _columns(entry: Entry) -> tuple[bytes, str, bytes, float]:
    return entry.event_id.bytes, entry.type, entry.body, entry.recorded_at
