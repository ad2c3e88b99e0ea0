"""Which metadata the ledger keeps."""

from typing import Any

import pytest

from usage_ingest.metadata import stored_metadata


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
def test_metadata_that_jsonb_has_is_kept(metadata: dict[str, Any]) -> None:
    """A backslash before such letters is a backslash, and no null character."""
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
def test_metadata_that_jsonb_has_not_is_left_out(metadata: dict[str, Any]) -> None:
    """Numbers beyond a double, and null characters wherever they are."""
    assert stored_metadata(metadata) is None


def test_a_run_without_metadata_lacks_none() -> None:
    """Absent is not the same as left out."""
    assert stored_metadata(None) is None
