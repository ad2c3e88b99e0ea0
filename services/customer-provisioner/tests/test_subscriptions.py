"""What a fetched subscription says, and from when on its plan holds."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from customer_provisioner.subscriptions import (
    Difference,
    Fetched,
    FetchedItem,
    PlanInUse,
    Subscription,
    after_fetch,
    after_sweep,
    announcement,
    difference,
    plans_fault,
    snapshot_of,
)
from nexus_plans import Plans, load

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
LATER = BEGAN + timedelta(days=20)

FILE = """
version: 1
unknown_users: free
without_subscription: free
plans:
  free: {display_name: Free}
  pro: {display_name: Pro, lookup_keys: [pro_month]}
  team: {display_name: Team, lookup_keys: [team_seat, team_compute]}
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """Return three plans, the later the better."""
    path: Path = tmp_path_factory.mktemp("plans") / "plans.yaml"
    path.write_text(FILE, encoding="utf-8")
    return load(path)


def item(
    lookup_key: str | None,
    quantity: int | None = 1,
    *,
    meter: str | None = None,
    ends: int = 31,
    metadata: Mapping[str, str] = {},
) -> FetchedItem:
    """Return an item whose period ends so many days after the subscription began."""
    return FetchedItem(
        price_id=f"price_{lookup_key}",
        product_id="prod_1",
        lookup_key=lookup_key,
        quantity=None if meter else quantity,
        meter=meter,
        period_start=BEGAN,
        period_end=BEGAN + timedelta(days=ends),
        product_metadata=metadata,
    )


def by_seat(of: FetchedItem) -> FetchedItem:
    """Return an item whose price says that its quantity is the number of seats."""
    return replace(of, price_metadata={"seats": "true"})


def fetched(*items: FetchedItem, status: str = "active", ended: datetime | None = None) -> Fetched:
    """Return a subscription with some items."""
    found = items or (item("pro_month"),)
    return Fetched("sub_1", "cus_1", status, found, started_at=BEGAN, ended_at=ended)


def stored(seen: Fetched, plans: Plans | None, before: Subscription | None = None) -> Subscription:
    """Return the subscription after a fetch."""
    as_of = BEGAN + timedelta(days=1) if before is None else before.as_of + timedelta(days=1)
    return after_fetch(before, seen, plans, as_of)


def test_the_best_plan_of_the_items_counts(plans: Plans) -> None:
    """A lookup key names it, or the product's metadata."""
    by_metadata = item(None, metadata={"plan_type": "team"})

    assert snapshot_of(fetched(), plans).plan_type == "pro"
    assert snapshot_of(fetched(item("pro_month"), by_metadata), plans).plan_type == "team"
    assert snapshot_of(fetched(item("unknown")), plans).plan_type is None
    assert snapshot_of(fetched(), None).plan_type is None


def test_seats_are_the_quantity_of_what_is_paid_by_seat(plans: Plans) -> None:
    """A flat fee has the quantity 1, which is no seat; nor is what is metered, or an extra."""
    seats = by_seat(item("team_seat", 12))
    others = (item("team_compute", meter="compute"), item("support", 1))

    assert snapshot_of(fetched(seats, *others), plans).seats == 12
    assert snapshot_of(fetched(item("pro_month")), plans).seats is None
    assert snapshot_of(fetched(*others), plans).seats is None
    assert snapshot_of(fetched(seats), None).seats is None


@pytest.mark.parametrize(
    ("in_use", "lost"),
    [
        ([], None),
        ([PlanInUse("team", 2, [])], None),
        ([PlanInUse("renamed", 2, ["team_seat"])], None),
        ([PlanInUse("team", 2, []), PlanInUse("gone", 3, ["gone_month"])], "gone (3)"),
    ],
)
def test_a_plan_file_without_a_plan_that_somebody_has_is_refused(
    plans: Plans, in_use: list[PlanInUse], lost: str | None
) -> None:
    """A plan may have another name, if a price of it leads to a plan of the file."""
    fault = plans_fault(in_use, plans)

    assert (
        (fault is None) if lost is None else (fault is not None and fault.endswith(f"for {lost}"))
    )
    assert (plans_fault(in_use, None) is None) is (in_use == [])


def test_a_sweep_raises_the_revision_of_what_is_the_same(plans: Plans) -> None:
    """Also where the clock was set back, which makes nothing older than it was."""
    before = stored(fetched(), plans)

    after = after_sweep(before, before.as_of + timedelta(days=1))
    back = after_sweep(before, before.as_of - timedelta(days=1))

    assert (after.snapshot, after.plan_since) == (before.snapshot, before.plan_since)
    assert (after.revision > before.revision, after.as_of > before.as_of) == (True, True)
    assert (back.revision > before.revision, back.as_of) == (True, before.as_of)


def test_the_period_is_that_of_what_is_metered(plans: Plans) -> None:
    """A yearly seat fee beside monthly usage says nothing of the usage's limits."""
    items = (item("team_seat", 3, ends=365), item("team_compute", meter="compute"))

    snapshot = snapshot_of(fetched(*items), plans)

    assert snapshot.period_end == BEGAN + timedelta(days=31)
    assert snapshot_of(fetched(items[0]), plans).period_end == BEGAN + timedelta(days=365)


def test_a_new_subscription_gives_its_plan_from_its_beginning(plans: Plans) -> None:
    """However late it is heard of."""
    assert stored(fetched(), plans).plan_since == BEGAN


def test_an_upgrade_holds_from_its_fetch_and_other_changes_move_nothing(plans: Plans) -> None:
    """Usage before it keeps the plan before."""
    first = stored(fetched(), plans)
    renewed = stored(fetched(item("pro_month", ends=62)), plans, first)
    upgraded = stored(fetched(item("team_seat", 3)), plans, renewed)

    assert renewed.plan_since == BEGAN
    assert upgraded.plan_since == upgraded.as_of


@pytest.mark.parametrize(("status", "holds"), [("past_due", True), ("unpaid", False)])
def test_a_plan_ends_where_the_subscription_stops_running(
    plans: Plans, status: str, *, holds: bool
) -> None:
    """A late payment does not end it, giving up does."""
    first = stored(fetched(), plans)
    second = stored(fetched(status=status), plans, first)

    assert second.plan_since == (BEGAN if holds else second.as_of)


def test_an_ended_subscription_holds_until_it_ended(plans: Plans) -> None:
    """And not until it was fetched, which may be a night later."""
    first = stored(fetched(), plans)
    ended = stored(fetched(status="canceled", ended=LATER), plans, first)

    assert ended.plan_since == LATER


def test_each_fetch_has_a_higher_revision(plans: Plans) -> None:
    """Also one that says the same: it may have begun before another that is not stored yet."""
    first = stored(fetched(), plans)

    assert stored(fetched(), plans, first).revision > first.revision


def test_a_change_that_no_webhook_said_is_told_from_ours(plans: Plans) -> None:
    """A plan that the file now finds is not one that a webhook could have said."""
    first, seen = stored(fetched(), plans), snapshot_of(fetched(), plans)
    past_due = snapshot_of(fetched(status="past_due"), plans)

    assert difference(first, fetched(), seen, None) is Difference.NONE
    assert difference(first, fetched(), past_due, None) is Difference.WEBHOOK
    assert difference(stored(fetched(), None), fetched(), seen, None) is Difference.OURS


def test_a_lookup_key_that_another_price_took_is_not_a_lost_webhook(plans: Plans) -> None:
    """Stripe says nothing of it; the price's own metadata keep plan and seats."""
    before = fetched(by_seat(item("team_seat", 3)))
    [had] = before.items
    marked = {"plan_type": "team", "seats": "true"}
    after = replace(before, items=(replace(had, lookup_key=None, price_metadata=marked),))
    seen = snapshot_of(after, plans)

    assert difference(stored(before, plans), after, seen, None) is Difference.OURS
    assert (seen.plan_type, seen.seats) == ("team", 3)


def test_an_unknown_subscription_is_missed_if_it_began_since_the_last_sweep(plans: Plans) -> None:
    """The first sweep finds all that there was before this service, and misses nothing."""
    seen = snapshot_of(fetched(), plans)

    assert difference(None, fetched(), seen, None) is Difference.OURS
    assert difference(None, fetched(), seen, BEGAN - timedelta(days=1)) is Difference.WEBHOOK
    assert difference(None, fetched(), seen, LATER) is Difference.OURS


def test_an_announcement_has_what_was_fetched(plans: Plans) -> None:
    """Made again, it is the same event; without an account there is none.

    The id of an old price was chosen by whoever made it.
    """
    seats = by_seat(item("team_seat", 3))
    subscription = stored(fetched(replace(seats, price_id="gold-plan")), plans)
    with pytest.raises(ValueError, match="without an account"):
        announcement(subscription)
    account_id = uuid4()

    event = announcement(replace(subscription, account_id=account_id))

    assert event.body() == announcement(replace(subscription, account_id=account_id)).body()
    assert (event.data.account_id, event.data.plan_type, event.data.seats) == (
        account_id,
        "team",
        3,
    )
    assert [(each.price_id, each.lookup_key) for each in event.data.items] == [
        ("gold-plan", "team_seat")
    ]
