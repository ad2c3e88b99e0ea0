"""What an answer of the usage API decides, by the cases that both packages decide alike."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from nexus_publisher.entitlements.decision import decide, matches, read_entitlement

TABLE: Final = json.loads(Path(__file__).with_name("entitlement_cases.json").read_text())


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_answer_decides(case: dict[str, Any]) -> None:
    """The TypeScript package's tests read the same table."""
    body = case["body"]

    read = None if body is None else read_entitlement(body.encode(), TABLE["user_id"])
    decision = decide(
        read, case["server_id"], case["tool_name"], otherwise=case["otherwise"] == "open"
    )

    assert {name: getattr(decision, name) for name in case["expect"]} == case["expect"]
    assert bool(decision) == case["expect"]["allowed"]
    assert (decision.as_of is None) == (decision.why == "no_answer")


def test_decision_says_up_to_when_usage_was_counted() -> None:
    """With its offset."""
    body = TABLE["cases"][0]["body"]

    decision = decide(
        read_entitlement(body.encode(), TABLE["user_id"]), "s", "t", otherwise=False, stale=True
    )

    assert decision.as_of == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert decision.stale


def test_text_that_is_no_unicode_is_matched() -> None:
    """A host may pass half a surrogate pair; it only has to fit or not."""
    assert matches("a*", "a\ud800")
    assert not matches("b*", "a\ud800")
