"""A folder for each process that runs servers; those of killed processes are deleted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local_stack.directory_lock import DirectoryClosedError, DirectoryLock
from local_stack.errors import LocalStackError
from local_stack.identities import ProcessIdentity
from local_stack.location import return_data


@contextmanager
def run_directory(parent: Path) -> Iterator[Path]:
    """Give this process a folder in ``parent``, which is deleted at the end.

    A killed process leaves its folder and its servers. The next one stops and deletes them.

    Raises:
        DirectoryClosedError: If ``parent`` can't be written.
    """
    name = _name(os.getpid())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.iterdir():
            if _name(_pid(left)) != left.name:
                # It may be another user's, or be deleted by another process.
                with suppress(LocalStackError, OSError):
                    _delete(left)
        directory = parent / name
        directory.mkdir()
    except OSError as error:
        raise DirectoryClosedError(parent, error) from error
    yield directory
    _delete(directory)


def _name(pid: int) -> str:
    """Name the folder of a process by its id and its start time: ids are used again."""
    process = ProcessIdentity.of(pid)
    return f"{pid}-{'' if process is None else process.started}"


def _pid(directory: Path) -> int:
    number = directory.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _delete(directory: Path) -> None:
    """End the servers that still run in ``directory`` and delete it."""
    for path in directory.glob("*/lock"):
        lock = DirectoryLock.acquire(path.parent)
        return_data(path.parent)
        lock.release()
    shutil.rmtree(directory)
