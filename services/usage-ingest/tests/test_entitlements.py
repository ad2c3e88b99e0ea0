"""The billing period of an account's answer."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from usage_ingest.usage_api.entitlements import Account, Subscription

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
USER = UUID(int=1)


def subscription(plan: str, days_ago: int, *, days: int = 30) -> Subscription:
    """Return a running subscription whose period began some days ago."""
    start = NOW - timedelta(days=days_ago)
    return Subscription(plan, "active", None, start, start + timedelta(days=days))


def account(*subscriptions: Subscription) -> Account:
    """Return an account of the plan `pro`."""
    return Account(USER, USER, True, "pro", subscriptions, True, NOW)


def test_period_is_of_the_subscription_that_gives_the_plan() -> None:
    """Another one may run beside it."""
    period = account(subscription("addon", 2), subscription("pro", 9)).period()

    assert (period.start, period.basis) == (NOW - timedelta(days=9), "stripe")


def test_period_is_of_another_subscription_while_the_next_is_unknown() -> None:
    """Thresholds are announced by the same period."""
    period = account(subscription("pro", 31), subscription("addon", 2)).period()

    assert (period.start, period.basis) == (NOW - timedelta(days=2), "stripe")


def test_period_is_the_utc_month_without_a_period_that_runs() -> None:
    """Stripe's next period is known once its webhook has come."""
    period = account(subscription("pro", 31)).period()

    assert (period.start, period.end, period.basis) == (
        datetime(2026, 3, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC),
        "utc_month",
    )
