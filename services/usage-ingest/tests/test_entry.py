"""What is stored of a run: every field of the contract, and its metadata if PostgreSQL can."""

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_contracts import ToolExecutedV2
from usage_ingest.entry import COLUMNS, DETAILS, stored_metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": [1, None, {"b": "c"}]},
        {"a": r"\u0000"},
        {r"\\u0000": 1e308},
        {"a": "\x01é\U0001f600"},
    ],
    ids=repr,
)
def test_metadata_that_jsonb_can_hold_is_stored(metadata: dict[str, Any]) -> None:
    """A backslash before ``u0000`` is a backslash, and no null character."""
    assert stored_metadata(metadata) is not None


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": float("inf")},
        {"a": [{"b": float("-inf")}]},
        {"a": float("nan")},
        {"a": "\x00"},
        {"\x00": 1},
        {"a": ["\\\x00"]},
        {"a": "\\u0000\x00"},
    ],
    ids=repr,
)
def test_metadata_that_jsonb_can_not_hold_is_left_out(metadata: dict[str, Any]) -> None:
    """Numbers beyond a double, and null characters in any place."""
    assert stored_metadata(metadata) is None


def test_run_without_metadata_has_none_stored() -> None:
    """An absent field is not one that was left out."""
    assert stored_metadata(None) is None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["NaN", "-Infinity", "\\u0000", "\\", "\x00", "\x7f", "\u2028", "\U0001f600"]
)
"""Texts as a JSON parser returns them: without halves of surrogate pairs."""
NUMBERS = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([-0.0, 1e16, 1e400])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def has_null_character(value: object) -> bool:
    """Whether a text or a name in ``value`` has a null character."""
    if isinstance(value, dict):
        return any(map(has_null_character, (*value, *value.values())))
    if isinstance(value, list):
        return any(map(has_null_character, value))
    return isinstance(value, str) and "\x00" in value


@settings(max_examples=200)
@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_metadata_is_stored_with_its_meaning_or_left_out(metadata: dict[str, Any]) -> None:
    """As Python's encoder has it, in other words perhaps: `jsonb` compares numbers, not digits."""
    expected = None
    with contextlib.suppress(ValueError):
        expected = json.dumps(metadata, allow_nan=False)
    if has_null_character(metadata):
        expected = None

    stored = stored_metadata(metadata)

    assert (stored is None) is (expected is None)
    if stored is not None and expected is not None:
        assert json.loads(stored) == metadata
        # Exactly, with the order of the names and, unlike `jsonb`, the sign of zero.
        assert exactly(stored) == exactly(expected)


def exactly(text: str) -> str:
    """Return what JSON text means, with numbers as their digits mean them."""
    return repr(json.loads(text, parse_float=lambda digits: Decimal(digits).normalize()))


NOT_DIGESTED = {"metadata"}
"""Fields that tell no event from another: a repetition may have other values of them."""

FIELDS = sorted(ToolExecutedV2.model_fields)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_run_is_stored(name: str) -> None:
    """A field that is added to the contract needs a column, and a migration."""
    assert name in {column.name for column in (*COLUMNS, *DETAILS)}, (
        f"add a column for {name} to COLUMNS or DETAILS in usage_ingest/entry.py, and a migration"
    )


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_run_is_digested_or_named_here(name: str) -> None:
    """Whether a repetition with another value is the same event must be decided."""
    digested = {column.name for column in (*COLUMNS, *DETAILS) if column.digested_from}

    assert (name in digested) is (name not in NOT_DIGESTED), (
        f"name {name} in NOT_DIGESTED, or give its column in usage_ingest/entry.py"
        " `digested_from=` the next DIGEST_VERSION or DETAILS_VERSION"
    )
