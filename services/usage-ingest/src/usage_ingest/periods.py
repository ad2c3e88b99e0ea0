"""Whether a report reached an invoice: its time and its answer's, against billing periods. Pure.

Stripe bills usage with the period that its timestamp lies in, if it comes before the invoice is
final: an hour after the period's end by default, up to three days by a setting there
(https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from nexus_contracts import SubscriptionChanged

NEVER_RAN = frozenset({"incomplete", "incomplete_expired"})
"""The statuses of a subscription whose first payment failed: nothing is invoiced for it."""


class Placement(StrEnum):
    """Where an accepted report ended up."""

    IN_PERIOD = "in_period"
    IN_GRACE = "in_grace"
    """After the period's end, and before its invoice is final."""
    AFTER_FINALISATION = "after_finalisation"
    """The invoice that it belongs to was final."""
    NOT_SUBSCRIBED = "not_subscribed"
    """Its customer has no subscription with that meter: it is on no invoice at all."""
    UNKNOWN = "unknown"
    """The account's subscriptions were not read yet."""


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period, without its end, and the meters that are billed with it."""

    start: datetime
    end: datetime
    meters: tuple[str, ...]


def place(
    answered_at: datetime, ends_at: datetime | None, grace: timedelta, *, known: bool
) -> Placement:
    """Place a report that Stripe accepted at ``answered_at``.

    ``ends_at`` is the end of the period that its usage lies in, ``None`` if there is none.
    ``known``: the account's subscriptions were read since the account has a customer.
    """
    if ends_at is None:
        return Placement.NOT_SUBSCRIBED if known else Placement.UNKNOWN
    if answered_at < ends_at:
        return Placement.IN_PERIOD
    return Placement.IN_GRACE if answered_at < ends_at + grace else Placement.AFTER_FINALISATION


def periods_of(change: SubscriptionChanged, *, first: bool) -> Iterable[Period]:
    """Yield the periods that ``change`` makes known; ``first``: nothing was known before.

    A subscription that is older than its current period had others before, which have ended.
    """
    if change.period_start is None or change.period_end is None or change.status in NEVER_RAN:
        return
    meters = tuple(sorted({item.meter for item in change.items if item.meter is not None}))
    if first and change.plan_since < change.period_start:
        yield Period(change.plan_since, change.period_start, meters)
    end = change.period_end if change.ended_at is None else min(change.period_end, change.ended_at)
    if change.period_start < end:
        yield Period(change.period_start, end, meters)
