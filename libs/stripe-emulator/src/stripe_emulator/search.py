"""Stripe's search query language, as far as finding an object by its data needs it.

Clauses are ``field:'exact'``, ``field~'part'`` and ``created>1700000000``, negated by a leading
``-`` and joined by ``AND`` or by ``OR``, not both. Text is compared without regard to case.
Source: https://docs.stripe.com/search#search-query-language
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stripe_emulator.errors import StripeError, invalid_parameter
from stripe_emulator.parameters import Integer, Parameters, Text

SEARCH = Parameters(
    {"limit": Integer(minimum=1, maximum=100), "page": Text(), "query": Text()}, ("query",)
)
_CLAUSE = re.compile(
    r"""\s*(?P<negated>-)?
    (?:metadata\[(?P<mark>['"])(?P<key>.+?)(?P=mark)\]|(?P<field>[a-z_]+))
    \s*(?P<sign>:|~|>=|<=|>|<)\s*
    (?:(?P<quote>['"])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)|(?P<bare>null|[0-9]+))
    (?:\s+(?P<join>AND|OR)(?=\s)|\s*$)""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ":": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
CUSTOMER_FIELDS = ("email", "name", "phone")
"""What the search of customers can compare, beside their metadata and their creation."""

_MIN_PART_CHARACTERS = 3
_CURSOR = re.compile(r"page_(?P<start>[0-9]{1,9})")
_MOMENT = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison; ``wanted`` is None for ``null``."""

    field: str | None
    metadata_key: str | None
    sign: str
    wanted: str | None
    negated: bool

    def matches(self, one: dict[str, Any]) -> bool:
        """Return whether the object satisfies this clause."""
        return self._holds(one) is not self.negated

    def _holds(self, one: dict[str, Any]) -> bool:
        if self.field == "created":
            return _COMPARE[self.sign](one["created"], int(self.wanted or 0))
        if self.metadata_key is not None:
            value = one["metadata"].get(self.metadata_key)
        else:
            value = one[str(self.field)]
        if value is None or self.wanted is None:
            return value is None and self.wanted is None
        found, wanted = str(value).casefold(), self.wanted.casefold()
        return bool(wanted in found) if self.sign == "~" else bool(wanted == found)


@dataclass(frozen=True, slots=True)
class Query:
    """The clauses of a search; all or any of them have to match."""

    clauses: tuple[Clause, ...]
    every: bool

    def matches(self, one: dict[str, Any]) -> bool:
        """Return whether an object matches."""
        hits = (clause.matches(one) for clause in self.clauses)
        return all(hits) if self.every else any(hits)


def parse(text: str, fields: tuple[str, ...] = CUSTOMER_FIELDS) -> Query:
    """Read a query that may compare ``fields``, metadata and ``created``.

    Raises:
        StripeError: 400 if it can't be read, or has an unsupported field or comparison.
    """
    clauses: list[Clause] = []
    joins: set[str] = set()
    position = 0
    while position < len(text):
        match = _CLAUSE.match(text, position)
        if match is None or (match["join"] is None and match.end() < len(text)):
            raise _unreadable()
        clauses.append(_clause(match, fields))
        joins |= {match["join"]} - {None}
        position = match.end()
        if match["join"] is not None and not text[position:].strip():
            raise _unreadable()
    if len(joins) > 1:
        raise invalid_parameter("query", "A query can't combine AND and OR.")
    return Query(tuple(clauses), every="OR" not in joins)


def search_result(
    matching: list[dict[str, Any]], params: dict[str, Any], url: str = "/v1/customers"
) -> dict[str, Any]:
    """Return one page of a search as Stripe's ``search_result`` object."""
    start = _page_start(params.get("page"))
    limit = params.get("limit", 10)
    has_more = len(matching) > start + limit
    return {
        "object": "search_result",
        "data": matching[start : start + limit],
        "has_more": has_more,
        "next_page": f"page_{start + limit}" if has_more else None,
        "url": f"{url}/search",
    }


def _page_start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid_parameter("page", "Invalid page cursor.")
    return int(match["start"])


def _clause(match: re.Match[str], fields: tuple[str, ...]) -> Clause:
    field, sign, bare = match["field"], match["sign"], match["bare"]
    wanted = bare if match["text"] is None else re.sub(r"\\(.)", r"\1", match["text"])
    if match["key"] is None and field not in (*fields, "created"):
        raise invalid_parameter("query", f"Field `{field}` is an unsupported search field.")
    if field == "created":
        if sign == "~" or not _MOMENT.fullmatch(wanted or ""):
            raise _unreadable()
    elif sign not in ":~" or (bare is not None and bare != "null"):
        raise _unreadable()
    if sign == "~" and (match["key"] is not None or len(wanted or "") < _MIN_PART_CHARACTERS):
        raise invalid_parameter("query", "A substring search needs a text field and 3 characters.")
    if bare == "null":
        wanted = None
    return Clause(field, match["key"], sign, wanted, negated=match["negated"] is not None)


def _unreadable() -> StripeError:
    return invalid_parameter(
        "query",
        "We were unable to parse your search query. Try using the format "
        '`metadata["key"]:"value"` to query for metadata or key:"value" for other fields.',
    )
