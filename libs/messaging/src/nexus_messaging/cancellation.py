"""Telling a cancellation that somebody asked for from one that a client library let out."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_if_asked_for() -> Iterator[None]:
    """Let a ``CancelledError`` through only if the current task is being cancelled.

    aiormq ends a connection that got stuck by cancelling its own reader, and that error comes out
    of whatever waits for the connection. Taken for a real cancellation it would end a loop without
    a word.

    Raises:
        ConnectionError: in place of a cancellation that nobody asked for.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection got stuck") from None
