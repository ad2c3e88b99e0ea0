"""What is stored of a run: every field of the contract, and its metadata if PostgreSQL can."""

from typing import Any

import pytest

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
