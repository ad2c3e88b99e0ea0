"""A folder for each process that runs servers for a while, and what killed ones left in theirs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local_stack.claims import Claim, DirectoryClosedError
from local_stack.errors import LocalStackError
from local_stack.identities import ProcessIdentity
from local_stack.places import bring_back


@contextmanager
def run_directory(parent: Path) -> Iterator[Path]:
    """Give this process a folder in ``parent``, deleted at the end with all that is in it.

    A killed process deletes nothing and stops no server. The next one does it.

    Raises:
        DirectoryClosedError: If ``parent`` can't be written.
    """
    name = _name(os.getpid())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.iterdir():
            if _name(_pid(left)) != left.name:
                # Another user's is left to that user, one that another process deletes to it.
                with suppress(LocalStackError, OSError):
                    _delete(left)
        directory = parent / name
        directory.mkdir()
    except OSError as error:
        raise DirectoryClosedError(parent, error) from error
    yield directory
    _delete(directory)


def _name(pid: int) -> str:
    """Name the folder of a process, also by its start: a number is given again."""
    process = ProcessIdentity.of(pid)
    return f"{pid}-{'' if process is None else process.started}"


def _pid(directory: Path) -> int:
    number = directory.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _delete(directory: Path) -> None:
    """End the servers that still run in ``directory``, and delete it."""
    for lock in directory.glob("*/lock"):
        claim = Claim.take(lock.parent)
        bring_back(lock.parent)
        claim.release()
    shutil.rmtree(directory)
