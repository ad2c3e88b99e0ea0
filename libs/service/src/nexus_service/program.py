"""What every program does around its work: it writes to any terminal and ends quietly if unread."""

import argparse
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, TextIO

from nexus_contracts.wording import printable

UNREAD: Final = 141
"""Exit code of a program whose output nobody reads on, as `… | head`: what SIGPIPE gives others."""

_FAILED: Final = 1
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Parser(argparse.ArgumentParser):
    """Reads arguments; what it says of wrong ones shows their characters and obeys none."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with 2."""
        super().error(printable(message))


def ended(work: Callable[[], int]) -> int:
    """Do the ``work`` of a program and return its exit code, or ``UNREAD``.

    SIGPIPE itself stays ignored: it would end a service for a lost connection, too.
    """
    _writable()
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BaseException as error:
        if _is_of_a_pipe(error) and any(map(_unread, (sys.stdout, sys.stderr))):
            return UNREAD
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _complain(error)
        raise
    finally:
        _discard_what_is_left()


def _writable() -> None:
    """Let each stream take any character, and be there: a shell may have closed it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(error: OSError) -> int:
    with suppress(OSError):
        sys.stderr.write(f"not everything could be written: {error.strerror}\n")
    return _FAILED


def _is_of_a_pipe(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_of_a_pipe, error.exceptions))
    return isinstance(error, BrokenPipeError)


def _unread(stream: TextIO) -> bool:
    """Return whether a pipe's other end is closed; a lost connection's error looks the same."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors and hang-ups come unasked
        return bool(poll.poll(0))
    return False


def _discard_what_is_left() -> None:
    """Let the interpreter's own flush at its end find nothing to complain about."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
