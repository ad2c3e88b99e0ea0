"""How arguments of the commands are read: whose statement, of when, a note, a list."""

import argparse
import shutil
import sys
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final, TextIO
from uuid import UUID

from nexus_service.command import moment

MAX_NOTE: Final = 200
"""Characters of a note on a settled difference: it is shown in one line."""


def rows(written: str) -> int:
    """Read a number of rows, at least one.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (written.isascii() and written.isdigit() and int(written)):
        raise argparse.ArgumentTypeError(f"{written!r} is no whole number above 0")
    return int(written)


def user_or_customer(written: str) -> UUID | str:
    """Read a user's id, or a customer's at Stripe.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if written.startswith("cus_"):
        return written
    try:
        return UUID(written)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "the UUID of a user, or a customer's id, cus_…, is wanted"
        ) from None


def month(written: str) -> tuple[datetime, datetime]:
    """Read a month of UTC, 2026-11, and return its begin and end.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        begin = moment(f"{written}-01T00:00:00Z")
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError("a month is wanted: 2026-11") from None
    return begin, (begin + timedelta(days=31)).replace(day=1)


def hour(written: str) -> datetime:
    """Read a day's begin, 2026-11-03, or a whole hour of UTC, since Stripe's sums are of hours.

    Raises:
        ArgumentTypeError: it is neither.
    """
    read = moment(f"{written}T00:00:00Z" if "T" not in written else written).astimezone(UTC)
    if read != read.replace(minute=0, second=0, microsecond=0):
        raise argparse.ArgumentTypeError(
            "a whole hour of UTC is wanted: Stripe's sums are of hours"
        )
    return read


def one_line(written: str) -> str:
    """Read a text that is shown in one line.

    Raises:
        ArgumentTypeError: it is empty, too long, or of more than one line.
    """
    if not written.strip() or len(written) > MAX_NOTE or not written.isprintable():
        raise argparse.ArgumentTypeError(f"a line of up to {MAX_NOTE} characters is wanted")
    return written


def readable_twice(written: str) -> TextIO:
    """Open a list, or a copy of standard input on disk, so that it can be read twice.

    Raises:
        ArgumentTypeError: it can't be read, or is not in UTF-8.
    """
    try:
        if written != "-":
            raw: IO[bytes] = Path(written).open("rb")  # noqa: SIM115 - read by the command
        elif sys.stdin is None:
            raise argparse.ArgumentTypeError("standard input is closed: name a file")
        else:
            raw = TemporaryFile()  # noqa: SIM115 - likewise; gone with the process
            shutil.copyfileobj(sys.stdin.buffer, raw)
            raw.seek(0)
        raw.readline().decode()
        raw.seek(0)
        # A line that is not in UTF-8 is counted as one that can't be used.
        return TextIOWrapper(raw, encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{written} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{written} is not in UTF-8") from None
