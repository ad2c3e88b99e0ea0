"""What `explain` says of an event that is in a claim with others."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from usage_ingest.explanation import EventHistory, explain
from usage_ingest.periods import Placement

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
USER = UUID(int=1)


def test_reports_of_a_claim_are_not_said_to_be_of_one_run() -> None:
    """A run without tokens is claimed with one that has some: only one meter has it."""
    lines = lines_of({"tool_call_executed": 1}, "llm_cost_micros", "tool_call_executed")

    (line,) = [each for each in lines if each.startswith("claimed with other runs")]
    assert lines.index("worth 1 on tool_call_executed") < lines.index(line)
    assert lines.index(line) < next(n for n, each in enumerate(lines) if each.startswith("report "))


def test_the_only_report_of_a_claim_needs_no_such_line() -> None:
    """It can only be the run's."""
    lines = lines_of({"tool_call_executed": 1}, "tool_call_executed")

    assert not [each for each in lines if each.startswith("claimed with other runs")]


def test_a_route_is_no_meter() -> None:
    """Stripe has no meter of such a name."""
    lines = lines_of({"@premium": 1}, "premium_tool_calls")

    after = lines[1 + lines.index("worth 1 on @premium")]
    assert after == "  a route (@) is on the meter that the plan of its account has for it, if any"


def test_an_accepted_report_is_not_called_counted() -> None:
    """Stripe's sum, in a line of its own, says whether it is."""
    lines = lines_of({"tool_call_executed": 1}, "tool_call_executed")

    assert "  reported: accepted by Stripe (2026-11-30T12:00:00Z)" in lines
    assert "  invoice: in_period, it comes in its billing period" in lines
    assert not [each for each in lines if "counted" in each]


def test_what_stripe_rejected_later_is_said_to_be_on_no_invoice() -> None:
    """The reader learns that time does not mend it."""
    rejected = {"state": "rejected_later", "reason": "archived_meter"}
    row = {**report(0, "tool_call_executed"), **rejected}
    history = EventHistory(
        event({"tool_call_executed": 1}), (row,), (None,), (Placement.IN_PERIOD,)
    )

    (line,) = [each for each in explain(history) if "rejected_later" in each]

    assert "archived_meter; it is on no invoice, and nothing sends it again" in line


def lines_of(readings: Mapping[str, int], *meters: str) -> list[str]:
    """Return the lines on an event with these readings, in a claim with reports on ``meters``."""
    reports = tuple(report(number, meter) for number, meter in enumerate(meters))
    placements = (Placement.IN_PERIOD,) * len(meters)
    return list(explain(EventHistory(event(readings), reports, (None,) * len(meters), placements)))


def event(readings: Mapping[str, int]) -> Mapping[str, Any]:
    """Return the row of a claimed event."""
    empty = dict.fromkeys(
        (
            "traceparent",
            "details_created_at",
            "metadata_left_out",
            "priced_as",
            "late_value",
            "lacked_price",
        )
    )
    return empty | {
        "occurred_at": NOW,
        "created_at": NOW,
        "source": "hub",
        "tool_name": "forecast",
        "server_id": "weather",
        "user_id": USER,
        "account_id": USER,
        "claimed_for": USER,
        "status": "succeeded",
        "billing_state": "claimed",
        "readings": readings,
    }


def report(number: int, meter: str) -> Mapping[str, Any]:
    """Return the row of a report that Stripe accepted."""
    return {
        "report_id": UUID(int=number),
        "identifier": f"nexus:{number}",
        "created_at": NOW,
        "forwarded_at": NOW,
        "answered_at": NOW,
        "stripe_customer_id": "cus_1",
        "meter": meter,
        "value": 3,
        "event_count": 3,
        "state": "reported",
        "reason": None,
        "ever_unknown": False,
    }
