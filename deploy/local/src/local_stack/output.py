"""Commands that end quietly when their output is closed, as by `… | head`."""

import os
import sys
from collections.abc import Callable
from typing import Final

OUTPUT_CLOSED: Final = 141
"""The exit code that shells report for a program ended by SIGPIPE."""


def exit_code_of(work: Callable[[], int]) -> int:
    """Run a command, clean-up included; return its exit code, or ``OUTPUT_CLOSED``."""
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except BaseException as error:
        if not _is_broken_pipe(error):
            raise
        # So that the interpreter's own flush at its end raises no error.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return OUTPUT_CLOSED


def _is_broken_pipe(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_broken_pipe, error.exceptions))
    return isinstance(error, BrokenPipeError)
