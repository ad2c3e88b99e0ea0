"""Locks between processes, on files; the kernel ends them with their process."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.001


def try_lock(path: Path) -> int:
    """Take the lock; return the descriptor that holds it until it is closed.

    Raises:
        BlockingIOError: another process holds it, or another part of this one.
        OSError: the file can't be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:  # a KeyboardInterrupt, too, must leave nothing locked
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock while the context lasts.

    Raises:
        BlockingIOError: it was held for longer than ``seconds``.
        OSError: the file can't be made.
    """
    deadline = time.monotonic() + seconds
    descriptor: int | None = None
    while descriptor is None:
        try:
            descriptor = try_lock(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)
