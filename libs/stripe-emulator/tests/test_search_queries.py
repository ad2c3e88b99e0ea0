"""The search query language, without a server."""

from typing import Any

import pytest

from stripe_emulator.errors import StripeError
from stripe_emulator.search import parse, search_result

ADA: dict[str, Any] = {
    "email": "Ada@example.org",
    "name": "Ada O'Neil",
    "phone": None,
    "created": 100,
    "metadata": {"user_id": "u-1", 'odd"key': "x"},
}


@pytest.mark.parametrize(
    "query",
    [
        "metadata['user_id']:'u-1'",
        'metadata["user_id"]:"u-1"',
        "metadata['user_id']:'U-1'",
        "email:'ada@example.org'",
        "email~'EXAMPLE'",
        r"name:'Ada O\'Neil'",
        "created:100",
        "created>99 AND created<=100",
        "email:'nobody' OR metadata['user_id']:'u-1'",
        "-email:'nobody'",
        "metadata['other']:null",
        "-metadata['user_id']:null",
        "phone:null AND name~'neil'",
    ],
)
def test_a_matching_query_matches(query: str) -> None:
    """Exact, partial, compared, negated and joined clauses find the customer they describe."""
    assert parse(query).matches(ADA)


@pytest.mark.parametrize(
    "query",
    [
        "metadata['user_id']:'u-2'",
        "metadata['user']:'u-1'",
        "email:'ada@example.or'",
        "created<100",
        "email:'ada@example.org' AND created>100",
        "-email:'ada@example.org'",
        "phone:'1'",
    ],
)
def test_another_query_does_not_match(query: str) -> None:
    """A clause that does not hold excludes the customer."""
    assert not parse(query).matches(ADA)


@pytest.mark.parametrize(
    "query",
    [
        "ada",
        "email=ada",
        "email:ada",
        "email:'ada",
        "email:'ada' AND",
        "email:'ada' name:'ada'",
        "email:'a' AND name:'b' OR name:'c'",
        "shoe_size:'44'",
        "email~'ad'",
        "email>'ada'",
        "created:'x'",
        "created~1",
    ],
)
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    """A mistake is a 400 about the query, never an empty result."""
    with pytest.raises(StripeError) as refusal:
        parse(query)

    assert (refusal.value.status, refusal.value.error["param"]) == (400, "query")


def test_a_search_is_read_page_by_page() -> None:
    """``next_page`` leads on until there is nothing more."""
    everything = [{"id": str(i)} for i in range(25)]

    first = search_result(everything, {"limit": 20})
    second = search_result(everything, {"limit": 20, "page": first["next_page"]})

    assert (len(first["data"]), first["has_more"]) == (20, True)
    assert (len(second["data"]), second["has_more"], second["next_page"]) == (5, False, None)
    with pytest.raises(StripeError):
        search_result(everything, {"page": "nonsense"})
