"""Many rows in one statement: parameters and SQL made from one list of columns. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

NEW_ID: Final = """(
    lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || substr(gen_random_uuid()::text, 16))::uuid"""
"""SQL for a UUID of version 7, which PostgreSQL 18 is the first to make by itself (RFC 9562).

Ids of the same time are neighbours in an index. Random ones are each on a page of their own, which
is read, and written to the log as a whole: several times the work on a table of millions of rows.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a statement writes.

    ``type`` is PostgreSQL's. ``value`` is the path of an attribute of the object that becomes a
    row, such as ``event.data.user_id``; the value of a ``jsonb`` column is JSON text.
    """

    name: str
    type: str
    value: str


def names(columns: Sequence[Column]) -> str:
    """Return the columns' names, as after ``INSERT INTO table``."""
    return ", ".join(column.name for column in columns)


def rows(columns: Sequence[Column]) -> str:
    """Return the ``FROM`` item ``n`` with a row for each element of ``arrays``."""
    casts = (f"CAST(:{column.name} AS {_sent_as(column)}[])" for column in columns)
    return f"unnest({', '.join(casts)}) AS n({names(columns)})"


def selected(columns: Sequence[Column]) -> str:
    """Return the ``SELECT`` list that takes the columns from ``rows``."""
    return ", ".join(
        f"n.{column.name}{'::jsonb' if column.type == 'jsonb' else ''}" for column in columns
    )


def arrays(columns: Sequence[Column], objects: Iterable[object]) -> dict[str, list[Any]]:
    """Return the parameters of ``rows``: for each of two or more columns, its values."""
    values = list(map(attrgetter(*(column.value for column in columns)), objects))
    by_column = zip(*values, strict=True) if values else ((),) * len(columns)
    return {column.name: list(of) for column, of in zip(columns, by_column, strict=True)}


def _sent_as(column: Column) -> str:
    return "text" if column.type == "jsonb" else column.type
