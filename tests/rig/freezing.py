"""Processes that are frozen: alive, connected, and silent."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def freeze(*pids: int) -> Iterator[None]:
    """Stop processes without their knowledge while the context lasts; they go on after it."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
