"""Which plan an account had from when on."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import SubscriptionChanged
from usage_ingest.plan_history import PlanSince, account_history, after_change

START = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    """Return a day of the test."""
    return START + timedelta(days=number)


def change(plan: str | None = "pro", *, since: int = 0, as_of: int = 0, **fields: Any) -> Any:
    """Return a change of the only subscription."""
    return SubscriptionChanged(
        subscription_id="sub_1",
        account_id=UUID(int=1),
        stripe_customer_id="cus_1",
        revision=1,
        plan_type=plan,
        status=fields.pop("status", "active"),
        items=[],
        plan_since=day(since),
        as_of=day(as_of),
        **fields,
    )


def history_of(*changes: SubscriptionChanged) -> list[tuple[int, str | None]]:
    """Return the history after ``changes``, in days."""
    history: list[PlanSince] = []
    known: str | None = None
    for each in changes:
        history, known = after_change(history, known, each), each.plan_type
    return [((each.since - START).days, each.plan_type) for each in history]


def test_new_subscription_holds_from_its_start() -> None:
    """Though it is known later."""
    assert history_of(change(since=1, as_of=3)) == [(1, "pro")]


def test_upgrade_holds_from_when_it_was_seen() -> None:
    """What ended before keeps the plan before."""
    assert history_of(change(), change("team", since=5, as_of=5)) == [(0, "pro"), (5, "team")]


def test_change_of_something_else_changes_no_plan() -> None:
    """Such as of its seats, whenever that was seen."""
    assert history_of(change(), change(as_of=9, seats=3)) == [(0, "pro")]


def test_ended_subscription_has_no_plan_from_its_end() -> None:
    """The event may come long after."""
    ended = change(since=7, as_of=9, status="canceled", ended_at=day(7))

    assert history_of(change(), ended) == [(0, "pro"), (7, None)]


def test_unpaid_subscription_has_no_plan_until_it_is_paid() -> None:
    """From when each was seen: the plan itself was the same all the time."""
    unpaid, paid = change(as_of=4, status="unpaid"), change(as_of=6)

    assert history_of(change(), unpaid, paid) == [(0, "pro"), (4, None), (6, "pro")]


def test_plan_of_a_subscription_that_is_past_due_holds() -> None:
    """Stripe still collects its invoices."""
    assert history_of(change(), change(status="past_due", as_of=4)) == [(0, "pro")]


def test_correction_of_the_past_replaces_what_followed() -> None:
    """A subscription that turns out to have ended before its upgrade was seen."""
    upgraded = change("team", since=5, as_of=5)
    ended = change("team", since=3, as_of=6, status="canceled", ended_at=day(3))

    assert history_of(change(), upgraded, ended) == [(0, "pro"), (3, None)]


def test_first_fetch_after_a_lost_database_changes_no_known_past() -> None:
    """Whoever announces it knows the start of the subscription alone, and not what was before."""
    upgraded = change("team", since=5, as_of=5)
    found_again = change("basic", since=0, as_of=8)

    assert history_of(change(), upgraded, found_again) == [(0, "pro"), (5, "team"), (8, "basic")]


def test_better_of_two_plans_counts_while_both_run() -> None:
    """And the other one afterwards."""
    free = [PlanSince(day(0), "a")]
    paid = [PlanSince(day(2), "b"), PlanSince(day(5), None)]

    found = account_history([free, paid], max)

    assert found == [PlanSince(day(0), "a"), PlanSince(day(2), "b"), PlanSince(day(5), "a")]


def test_account_without_a_running_subscription_has_no_plan() -> None:
    """Neither before its first one nor after its last."""
    assert account_history([], max) == []
    assert account_history([[PlanSince(day(0), None)]], max) == []


histories = st.lists(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", "c", None])),
        unique_by=lambda span: span[0],
    ).map(lambda spans: [PlanSince(day(since), plan) for since, plan in sorted(spans, key=_first)]),
    max_size=4,
)


def _first(span: tuple[int, str | None]) -> int:
    return span[0]


def at(history: Sequence[PlanSince], moment: datetime) -> str | None:
    """Return the plan at a time."""
    return next((e.plan_type for e in reversed(history) if e.since <= moment), None)


@given(histories)
def test_account_has_the_best_of_its_plans_at_any_time(all_of: list[list[PlanSince]]) -> None:
    """It does not depend on the subscriptions' order, and no span repeats the one before."""
    found = account_history(all_of, max)

    for number in range(-1, 11):
        running = {plan for each in all_of if (plan := at(each, day(number))) is not None}
        assert at(found, day(number)) == (max(running) if running else None)
    assert account_history(all_of[::-1], max) == found
    plans = [None, *(each.plan_type for each in found)]
    assert all(before != after for before, after in pairwise(plans))
