"""The file that a command reads, or standard input."""

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import IO


class UnreadableFileError(Exception):
    """A file can't be read, or is not what the command reads; the text says what helps."""


def lines_of(file: str | None) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, or of standard input, with the ends that they have.

    A byte order mark, which Excel writes, is left out. Ctrl-C ends the reading: an event loop
    would only note it, as whoever reads from a terminal keeps the loop waiting.

    Raises:
        UnreadableFileError: it can't be read, or is in another encoding.
    """
    name = file or "standard input"
    try:
        with (
            _interruptible(),
            _opened(file) as raw,
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


def _opened(file: str | None) -> AbstractContextManager[IO[bytes]]:
    if file is not None:
        return Path(file).open("rb")
    if sys.stdin is None:
        raise UnreadableFileError("standard input is closed: name a file")
    return nullcontext(sys.stdin.buffer)
