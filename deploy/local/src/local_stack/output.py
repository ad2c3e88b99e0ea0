"""Ending quietly when nobody reads a command's output on, as `… | head` does."""

import os
import sys
from collections.abc import Callable
from typing import Final

UNREAD: Final = 141
"""The exit code that shells give a program which SIGPIPE ended."""


def ended(work: Callable[[], int]) -> int:
    """Do the work of a command, cleaning up included; return its exit code or ``UNREAD``."""
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except BaseException as error:
        if not _is_of_a_pipe(error):
            raise
        # The interpreter's own flush at its end is to find nothing to complain about.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return UNREAD


def _is_of_a_pipe(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_of_a_pipe, error.exceptions))
    return isinstance(error, BrokenPipeError)
