"""Reading users from a list: JSON lines, a JSON array, or a table with a header."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from nexus_contracts import UserCreated
from nexus_contracts.wording import describe
from nexus_service.input_files import UnreadableFileError

COLUMNS: Final = ("user_id", "email")
"""Those that a table must have; ``name`` is the third."""

SEPARATORS: Final = ",;\t"
"""Excel writes semicolons where a comma is the decimal sign."""


class UnreadableListError(UnreadableFileError):
    """The list is none, or breaks off; what was read of it before stands."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that is no user; ``wrong`` names fields and rules, never what was written."""

    entry: int
    wrong: str


def read_users(lines: Iterable[str]) -> Iterator[UserCreated | Unusable]:
    """Read one user from each entry, counted from 1: ``user_id``, ``email`` and perhaps ``name``.

    A list that begins with ``{`` is JSON lines, one that begins with ``[`` a JSON array, any other
    a table whose header names the columns, separated by commas, semicolons or tabs. Other fields
    and columns are ignored, and so are empty lines.

    Raises:
        UnreadableListError: it holds no entry at all, which a failed export looks like; its header
            lacks a column; or the table breaks off, as by a quote that is never closed.
    """
    entry = 0
    for entry, body in enumerate(_bodies(line for line in lines if line.strip()), start=1):
        try:
            yield UserCreated.model_validate_json(body)
        except ValidationError as error:
            yield Unusable(entry, describe(error))
    if not entry:
        raise UnreadableListError("the list is empty: it holds no user")


def _bodies(filled: Iterator[str]) -> Iterator[str]:
    """Yield each entry as JSON."""
    first = next(filled, "")
    match first.lstrip()[:1]:
        case "":
            return
        case "{":
            yield from chain([first], filled)
        case "[":
            yield from _array("".join([first, *filled]))
        case _:
            yield from _table(first, filled)


def _array(text: str) -> Iterator[str]:
    try:
        entries = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise UnreadableListError("the list begins as a JSON array and is not JSON") from None
    yield from map(json.dumps, entries)


def _table(header: str, rows: Iterator[str]) -> Iterator[str]:
    separator = max(SEPARATORS, key=header.count)
    try:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        columns = [name.strip().lower() for name in names]
        if missing := [name for name in COLUMNS if name not in columns]:
            raise UnreadableListError(
                f"the first line names no column {' and no column '.join(missing)}: a list is a"
                " table with the header user_id,email,name, JSON lines or a JSON array"
            )
        table = csv.DictReader(rows, columns, delimiter=separator, skipinitialspace=True)
        yield from map(_as_json, table)
    except csv.Error as error:
        raise UnreadableListError(f"the table breaks off: {error}") from None


def _as_json(row: dict[str, Any]) -> str:
    """Write a row as JSON: an empty cell is an absent field, surplus cells are dropped."""
    return json.dumps({name: cell for name, cell in row.items() if name and cell})
