"""The frame of every program: output in any encoding, and a silent exit if the output is closed."""

import argparse
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, TextIO

from typing_extensions import override

from nexus_contracts.wording import printable

OUTPUT_CLOSED: Final = 141
"""Exit code if the output is closed, as by `… | head`; shells report SIGPIPE with the same code."""

_FAILED: Final = 1
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Parser(argparse.ArgumentParser):
    """Reads arguments; its error texts escape control characters."""

    @override
    def error(self, message: str) -> NoReturn:
        """Show the error and exit with 2."""
        super().error(printable(message))


def run_program(work: Callable[[], int]) -> int:
    """Run the ``work`` of a program and return its exit code, or ``OUTPUT_CLOSED``.

    SIGPIPE stays ignored, because it would also end a service that loses a connection.
    """
    _prepare_streams()
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BaseException as error:
        if _is_broken_pipe(error) and any(map(_is_closed_by_reader, (sys.stdout, sys.stderr))):
            return OUTPUT_CLOSED
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _report_write_error(error)
        raise
    finally:
        _discard_unwritten()


def _prepare_streams() -> None:
    """Make each stream accept any character; replace one that the shell has closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report_write_error(error: OSError) -> int:
    with suppress(OSError):
        sys.stderr.write(f"not everything could be written: {error.strerror}\n")
    return _FAILED


def _is_broken_pipe(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_broken_pipe, error.exceptions))
    return isinstance(error, BrokenPipeError)


def _is_closed_by_reader(stream: TextIO) -> bool:
    """Return whether the reader has closed the pipe; a lost connection raises the same error."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors and hang-ups are always reported
        return bool(poll.poll(0))
    return False


def _discard_unwritten() -> None:
    """Discard unwritten output, so that the interpreter's flush at exit does not fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
