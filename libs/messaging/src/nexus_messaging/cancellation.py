"""Separates a real cancellation or a bug from what aiormq leaks when a connection closes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stray_cancellation_as_error() -> Iterator[None]:
    """Raise ``ConnectionError`` for a ``CancelledError`` unless the current task is cancelled.

    Likewise for an ``Exception`` of no further class, with which aiormq ends all that still waits
    on a connection that it closes.

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
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionError("the connection was closed") from None
