"""One connection to the spool's SQLite file: opened when needed, replaced when it is damaged.

Each file has a name of its own, which is never used again. A file that is damaged, or that somebody
deletes, can therefore be replaced while other processes still have it open: SQLite finds the files
beside it by name, and would delete those of the new one.
"""

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, TypeVar

from nexus_publisher.file_locks import locked

T = TypeVar("T")
Synchronous = Literal["normal", "full"]

RETRY_SECONDS: Final = 2.0
"""How long a file that fails is left alone: each attempt costs its caller access to the disk."""

PAGE_BYTES: Final = 4096

LOG_BYTES: Final = 8 * 1024 * 1024
"""The write-ahead log is emptied when it is longer."""

PATTERN: Final = "events-*.sqlite"
SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS events (
    row INTEGER PRIMARY KEY,
    event_id BLOB NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    recorded_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_type ON events (type);
"""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_USABLE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""Errors after which the connection is as good as before."""


class SpoolUnavailableError(Exception):
    """The spool can't be used now; the text is SQLite's or the system's name of the cause."""


class SpoolFile:
    """A connection that several threads share, one at a time, and that no fork inherits.

    ``busy_seconds`` bounds each wait: for other threads, for another process that opens the file,
    and for another that writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        synchronous: Synchronous,
        busy_seconds: float,
        on_set_aside: Callable[[Path], None],
    ) -> None:
        self._folder = folder
        self._max_pages = max(16, max_bytes // PAGE_BYTES)
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._on_set_aside = on_set_aside
        self._lock = threading.RLock()  # it knows who holds it, also after a KeyboardInterrupt
        self._connection: sqlite3.Connection | None = None
        self._path: Path | None = None
        self._open_at = 0.0
        self._cause = ""

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns for the connection, in a transaction of its own.

        Raises:
            SpoolUnavailableError: busy, full, not writable or damaged; nothing was changed.
        """
        if self._in_use_by_me():
            raise SpoolUnavailableError("SQLITE_BUSY")
        try:
            if not self._lock.acquire(timeout=self._busy_seconds):
                raise SpoolUnavailableError("SQLITE_BUSY")
            with _transaction(self._opened()) as connection:
                return work(connection)
        except sqlite3.Error as error:
            self._recover_from(error)
            raise SpoolUnavailableError(_name_of(error)) from None
        except BlockingIOError as error:  # another process opens the file
            raise SpoolUnavailableError(_name_of(error)) from None
        except OSError as error:
            self._leave_alone(error)
            raise SpoolUnavailableError(_name_of(error)) from None
        finally:
            # No call comes before the release, not even `suppress`: after it a handler may raise.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:  # it was not acquired
                pass

    def checkpoint(self) -> None:
        """Write what is in the write-ahead log to the disk and to the file.

        It holds up no writer, unless the log is long: writers that never pause keep it from being
        begun anew, and it would grow without end.
        """
        if not self._lock.acquire(timeout=self._busy_seconds):
            return
        try:
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if Path(f"{self._path}-wal").stat().st_size > LOG_BYTES:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._recover_from(error)
        except OSError as error:
            self._leave_alone(error)
        finally:
            self._lock.release()

    @property
    def path(self) -> Path | None:
        """The file that is open."""
        return self._path

    def suspend(self, seconds: float) -> bool:
        """Close the connection and keep every thread from it; return whether that was possible."""
        if not self._lock.acquire(timeout=seconds):
            return False
        self._close()
        return True

    def resume(self) -> None:
        """Let threads use it again after ``suspend``."""
        self._open_at = 0.0
        self._lock.release()

    def close(self) -> None:
        """Close the connection; a later use opens it again."""
        if self.suspend(self._busy_seconds):
            self.resume()

    def _in_use_by_me(self) -> bool:
        """Return whether a signal handler has interrupted this thread in the middle of a use."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001
        return owned

    def _opened(self) -> sqlite3.Connection:
        """Return the connection to a file that is still in its place."""
        if self._connection is not None and self._path is not None:
            if self._path.exists():
                return self._connection
            self._close()
            self._open_at = 0.0
        if time.monotonic() < self._open_at:
            raise SpoolUnavailableError(self._cause)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._opening():
            return self._open_or_replace()

    def _opening(self) -> AbstractContextManager[None]:
        return locked(self._folder / "opening.lock", self._busy_seconds)

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.Error as error:
            if _code_of(error) not in _DAMAGED:
                raise
            self._set_aside()
            return self._open()

    def _open(self) -> sqlite3.Connection:
        files = sorted(self._folder.glob(PATTERN))
        self._path = files[0] if files else self._create()
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
        # A checkpoint waits for the disk: the thread that delivers makes them, no caller does.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
        connection.executescript(SCHEMA)

    def _create(self) -> Path:
        """Make an empty file that only its owner may read: the bodies may hold e-mail addresses.

        SQLite gives its other files the same mode. A file that exists is never opened here: closing
        it would drop the locks of this process's other connections.
        """
        path = self._folder / PATTERN.replace("*", secrets.token_hex(4))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return path

    def _recover_from(self, error: sqlite3.Error) -> None:
        code = _code_of(error)
        if code in _USABLE:
            return
        path = self._path
        self._leave_alone(error)
        if code in _DAMAGED and path is not None:
            with suppress(OSError), self._opening():
                self._path = path
                self._set_aside()
            self._open_at = 0.0

    def _leave_alone(self, error: sqlite3.Error | OSError) -> None:
        """Close the file, and open it again after a while."""
        self._close()
        self._open_at = time.monotonic() + RETRY_SECONDS
        self._cause = _name_of(error)

    def _set_aside(self) -> None:
        """Rename the damaged file, with its log, so that a new one is made."""
        path = self._path
        self._close()
        if path is None or not path.exists():
            return
        aside = path.with_suffix(".damaged")
        for ending in ("-wal", ""):
            with suppress(FileNotFoundError):
                Path(f"{path}{ending}").rename(f"{aside}{ending}")
        self._on_set_aside(aside)

    def _close(self) -> None:
        connection, self._connection, self._path = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.rollback()


def _code_of(error: sqlite3.Error) -> int:
    """Return the primary result code (https://www.sqlite.org/rescode.html)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _name_of(error: sqlite3.Error | OSError) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)
