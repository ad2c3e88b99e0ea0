"""The input of a command: a file or standard input."""

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import IO


class UnreadableFileError(Exception):
    """A file can't be read or has the wrong content; the text says what to do."""


def lines_of(file: str | None) -> Iterator[str]:
    """Yield the lines of a UTF-8 file or of standard input, with their line endings.

    A byte order mark, which Excel writes, is removed. Ctrl-C interrupts the read: the event loop
    alone would not notice it, because a read from a terminal blocks the loop.

    Raises:
        UnreadableFileError: the file can't be read, or is not in UTF-8.
    """
    name = file or "standard input"
    try:
        with (
            _interruptible(),
            _open(file) as raw,
            TextIOWrapper(raw, encoding="utf-8-sig", newline="") as lines,
        ):
            yield from lines
    except OSError as error:
        raise UnreadableFileError(f"{name} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnreadableFileError(f"{name} is not in UTF-8: save it so and try again") from None


@contextmanager
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _open(file: str | None) -> AbstractContextManager[IO[bytes]]:
    if file is not None:
        return Path(file).open("rb")
    if sys.stdin is None:
        raise UnreadableFileError("standard input is closed: name a file")
    return nullcontext(sys.stdin.buffer)
