"""Reads users from a list: JSON lines, a JSON array, or a table with a header."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from nexus_contracts import UserCreatedV2
from nexus_contracts.wording import describe
from nexus_service.input_files import UnreadableFileError

COLUMNS: Final = ("user_id", "email")
"""The columns that a table must have; ``name`` and ``stripe_customer_id`` are optional."""

SEPARATORS: Final = ",;\t"
"""Excel writes semicolons where the comma is the decimal separator."""


class UnreadableListError(UnreadableFileError):
    """The file is not a list of users, or it is cut off; entries already read are valid."""


@dataclass(frozen=True, slots=True)
class UnusableEntry:
    """An entry that is not a user; ``fault`` names fields and rules, never a value."""

    number: int
    fault: str


def read_users(lines: Iterable[str]) -> Iterator[UserCreatedV2 | UnusableEntry]:
    """Read a user from each entry, counted from 1, by the fields of ``user.created.v2``.

    A list that begins with ``{`` is JSON lines, one that begins with ``[`` is a JSON array, and any
    other is a table whose header names the columns, separated by commas, semicolons or tabs. Other
    fields, other columns and empty lines are ignored.

    Raises:
        UnreadableListError: the list has no entry, as after a failed export; its header lacks a
            column; or the table is cut off, for example by a quote that is never closed.
    """
    number = 0
    for number, body in enumerate(_bodies(line for line in lines if line.strip()), start=1):
        yield read_user(body, number)
    if not number:
        raise UnreadableListError("the list is empty: it holds no user")


def read_user(body: str, number: int) -> UserCreatedV2 | UnusableEntry:
    """Read the user in the entry of this number, as JSON."""
    try:
        return UserCreatedV2.model_validate_json(body)
    except ValidationError as error:
        return UnusableEntry(number, describe(error))


def _bodies(lines: Iterator[str]) -> Iterator[str]:
    """Yield each entry as JSON."""
    first = next(lines, "")
    match first.lstrip()[:1]:
        case "":
            return
        case "{":
            yield from chain([first], lines)
        case "[":
            yield from _array("".join([first, *lines]))
        case _:
            yield from _table(first, lines)


def _array(text: str) -> Iterator[str]:
    try:
        entries = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise UnreadableListError("the list begins like a JSON array but is not JSON") from None
    yield from map(json.dumps, entries)


def _table(header: str, rows: Iterator[str]) -> Iterator[str]:
    separator = max(SEPARATORS, key=header.count)
    try:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        columns = [name.strip().lower() for name in names]
        if missing := [name for name in COLUMNS if name not in columns]:
            raise UnreadableListError(
                f"the first line names no column {' and no column '.join(missing)}: a list is a"
                " table with the header user_id,email,name,stripe_customer_id, JSON lines or a"
                " JSON array"
            )
        table = csv.DictReader(rows, columns, delimiter=separator, skipinitialspace=True)
        yield from map(_as_json, table)
    except csv.Error as error:
        raise UnreadableListError(f"the table is cut off: {error}") from None


def _as_json(row: dict[str, Any]) -> str:
    """Return a row as JSON, without empty cells and cells that belong to no column."""
    return json.dumps({name: cell for name, cell in row.items() if name and cell})
