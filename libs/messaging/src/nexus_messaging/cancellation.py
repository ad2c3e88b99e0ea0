"""Separates a real cancellation of a task from a ``CancelledError`` that aiormq leaks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stray_cancellation_as_error() -> Iterator[None]:
    """Raise ``ConnectionError`` for a ``CancelledError`` unless the current task is cancelled.

    aiormq closes a stuck connection by cancelling its own reader task. The error then reaches every
    task that waits for the connection. Treated as a real cancellation, it would end a loop without
    a log line.

    Raises:
        ConnectionError: the connection was closed; the current task is not being cancelled.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection got stuck") from None
