"""Processes that are suspended: alive, connected and silent."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def freeze(*pids: int) -> Iterator[None]:
    """Suspend processes (SIGSTOP) while the context lasts, and continue them at its end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
