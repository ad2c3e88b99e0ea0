"""Which shares of limits are announced, and by which ids."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from nexus_plans import Plans
from nexus_plans.reading import read
from usage_ingest.thresholds import Share, Usage, announced_meters, event_id, newly_reached

PLANS: Plans = read(
    b"""
version: 1
unknown_users: free
without_subscription: free
meters:
  premium: {display_name: Premium}
plans:
  free:
    display_name: Free
    limits:
      - {name: runs, meter: tool_call_executed, limit: 1000, tell_at: [80, 100]}
      - {name: premium, meter: premium, limit: 0, tell_at: [100]}
      - {name: silent, meter: tool_call_executed, limit: 1}
  unlimited:
    display_name: Unlimited
""",
    "plans.yaml",
)
START = datetime(2026, 3, 1, tzinfo=UTC)
USAGE = Usage(
    account_id=UUID(int=1),
    meter="tool_call_executed",
    plan_type="free",
    period_start=START,
    period_end=START + timedelta(days=31),
    used=0,
    sent=frozenset(),
    as_of=START + timedelta(days=3),
)


def shares(usage: Usage) -> list[int]:
    """Return the shares that are announced."""
    return [each.share_percent for each in newly_reached(usage, PLANS)]


@pytest.mark.parametrize(
    ("used", "reached"),
    [(0, []), (799, []), (800, [80]), (1000, [80, 100]), (9999, [80, 100])],
)
def test_share_is_reached_at_its_part_of_the_limit(used: int, reached: list[int]) -> None:
    """Exactly; all that are passed at once are announced."""
    assert shares(replace(USAGE, used=used)) == reached


def test_share_that_was_sent_is_not_announced_again() -> None:
    """Unless the limit's value is another one by now."""
    sent = frozenset({Share("runs", 1000, 80), Share("runs", 500, 100)})

    assert shares(replace(USAGE, used=1000, sent=sent)) == [100]


def test_limit_of_nothing_is_reached_by_the_first_use() -> None:
    """Not before."""
    assert shares(replace(USAGE, meter="premium", used=1)) == [100]
    assert shares(replace(USAGE, meter="premium", used=0)) == []


@pytest.mark.parametrize(("plan", "reached"), [(None, [80]), ("gone", [80]), ("unlimited", [])])
def test_plan_of_the_account_decides(plan: str | None, reached: list[int]) -> None:
    """Without a subscription, or with a plan that the file lost, it is the file's choice."""
    assert shares(replace(USAGE, plan_type=plan, used=800)) == reached


def test_id_is_of_account_meter_period_limit_and_share_alone() -> None:
    """Whatever was used then, and in whichever offset the period's start is written."""
    [first] = newly_reached(replace(USAGE, used=800), PLANS)
    local = START.astimezone(timezone(timedelta(hours=2)))
    [again] = newly_reached(replace(USAGE, used=900, period_start=local), PLANS)
    others = [
        first.model_copy(update=change)
        for change in (
            {"account_id": UUID(int=2)},
            {"meter": "premium"},
            {"period_start": START + timedelta(seconds=1)},
            {"limit_name": "others"},
            {"limit": 999},
            {"share_percent": 100},
        )
    ]

    assert event_id(first) == event_id(again) == UUID("43580f58-96c2-587b-92ad-d9be2dd943c6")
    assert len({event_id(each) for each in (first, *others)}) == 7


def test_meters_of_silent_limits_are_not_watched() -> None:
    """Nothing is kept of what is not announced."""
    assert announced_meters(PLANS) == {"tool_call_executed", "premium"}
