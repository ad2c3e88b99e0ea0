"""Reading users from a list: JSON lines, or CSV with a header."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import ValidationError

from nexus_contracts import UserCreated
from nexus_contracts.wording import describe


class UnreadableListError(Exception):
    """The list is no table; what was read of it before stands."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that is no user; ``wrong`` names fields and rules, never what was written."""

    entry: int
    wrong: str


def read_users(lines: Iterable[str]) -> Iterator[UserCreated | Unusable]:
    """Read one user from each entry, counted from 1: ``user_id``, ``email`` and perhaps ``name``.

    A list that begins with ``{`` is JSON lines, any other CSV with a header. Other fields and
    columns are ignored, and so are empty lines.

    Raises:
        UnreadableListError: where the table breaks off, as by a quote that is never closed.
    """
    filled = (line for line in lines if line.strip())
    first = next(filled, "")
    whole = chain([first], filled) if first else filled
    bodies = whole if first.lstrip().startswith("{") else _rows(whole)
    for entry, body in enumerate(bodies, start=1):
        try:
            yield UserCreated.model_validate_json(body)
        except ValidationError as error:
            yield Unusable(entry, describe(error))


def _rows(lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from map(_as_json, csv.DictReader(lines))
    except csv.Error as error:
        raise UnreadableListError(f"the table breaks off: {error}") from None


def _as_json(row: dict[str, Any]) -> str:
    """Write a CSV row as JSON: an empty cell is an absent field, surplus cells are dropped."""
    return json.dumps({name: cell for name, cell in row.items() if name and cell})
