"""The lock on a directory: one owner at a time, and servers of a crashed owner are ended."""

import fcntl
import json
import os
import pwd
import signal
from pathlib import Path
from typing import IO, Self

from local_stack.errors import LocalStackError
from local_stack.identities import ProcessIdentity, await_exit, await_removal

_GONE_WITHIN_SECONDS = 10.0


class DirectoryInUseError(LocalStackError):
    """Another process of this machine uses the directory.

    Attributes:
        holder: Its process id; ``None`` if it has just started.
    """

    def __init__(self, directory: Path, holder: int | None) -> None:
        self.holder = holder
        super().__init__(f"{directory} is in use by process {holder or '(just starting)'}")


class DirectoryClosedError(LocalStackError):
    """The directory can't be written; the text names its owner and says what to do."""

    def __init__(self, directory: Path, error: OSError) -> None:
        closed = Path(error.filename or directory)
        super().__init__(f"{closed} can't be written: {error.strerror}{_advice(closed, directory)}")


class DirectoryLock:
    """An exclusive lock on a directory: a file lock that the kernel releases with its holder.

    So no lock becomes stale. The server processes outlive a killed holder: their ids are written
    down here, and the next holder ends them before it starts its own.
    """

    def __init__(self, directory: Path, lock: IO[str]) -> None:
        self._pids = directory / "pids.json"
        self._lock = lock

    @classmethod
    def acquire(cls, directory: Path) -> Self:
        """Lock ``directory``, creating it, and end the servers that a crashed holder left.

        Raises:
            DirectoryInUseError: If a running process holds the lock.
            DirectoryClosedError: If it can't be made or written.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise DirectoryClosedError(directory, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = int(lock.read() or 0) or None
            lock.close()
            raise DirectoryInUseError(directory, holder) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        acquired = cls(directory, lock)
        acquired._end_leftovers()
        return acquired

    def write_pids(self, *pids: int) -> None:
        """Write down the server processes now running here, instead of those before."""
        identities = (ProcessIdentity.of(pid) for pid in pids)
        rows = [[each.pid, each.started] for each in identities if each is not None]
        self._pids.write_text(json.dumps(rows), encoding="utf-8")

    def release(self) -> None:
        """Release the directory; its servers must have been stopped. Repeated calls do nothing."""
        if self._lock.closed:
            return
        self._pids.unlink(missing_ok=True)
        self._lock.truncate(0)
        self._lock.close()

    def _end_leftovers(self) -> None:
        if not self._pids.exists():
            return
        rows = json.loads(self._pids.read_text(encoding="utf-8") or "[]")
        leftovers = [ProcessIdentity(pid, started) for pid, started in rows]
        for leftover in leftovers:
            leftover.send(signal.SIGKILL)
        await_exit(leftovers, seconds=_GONE_WITHIN_SECONDS)
        await_removal(leftovers, seconds=_GONE_WITHIN_SECONDS)


def write_secret(path: Path, text: str) -> None:
    """Write a file anew that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _advice(path: Path, directory: Path) -> str:
    """Say what to do if ``path``, or the nearest existing folder above, has another owner."""
    there = next(each for each in (path, *path.parents) if _exists(each))
    owner, own = there.stat().st_uid, os.geteuid()
    if owner == own:
        return ""
    return (
        f". {there} belongs to {_name(owner)}, not to {_name(own)}: delete "
        f"{directory if _exists(directory) else there} as {_name(owner)}, "
        "or work in a clone of your own"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
