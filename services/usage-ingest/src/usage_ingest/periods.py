"""Whether a report reached an invoice: its time and its answer's, against billing periods. Pure.

Stripe bills usage with the period that its timestamp lies in, if it comes before the invoice is
final: an hour after the period's end by default, up to three days by a setting there
(https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period).
"""

from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from nexus_contracts import SubscriptionChanged


class Placement(StrEnum):
    """Where an accepted report ended up."""

    IN_PERIOD = "in_period"
    IN_GRACE = "in_grace"
    """After the period's end, and before its invoice is final."""
    AFTER_FINALISATION = "after_finalisation"
    """The invoice that it belongs to was final."""
    NOT_SUBSCRIBED = "not_subscribed"
    """Its customer has no subscription with that meter: it is on no invoice at all."""
    NOT_CHARGED = "not_charged"
    """Likewise, and the plan of its account has no price for that meter."""
    ENDED_EARLY = "ended_early"
    """Its subscription was canceled at once: it is on an invoice only if one was asked for."""
    UNKNOWN = "unknown"
    """The account's subscriptions were not read yet."""


def place(
    answered_at: datetime,
    ends_at: datetime | None,
    grace: timedelta,
    *,
    known: bool,
    charged: bool,
    early: bool,
) -> Placement:
    """Place a report that Stripe accepted at ``answered_at``.

    ``ends_at`` is the end of the period that its usage lies in, ``None`` if there is none.
    ``known``: the account's subscriptions were read since the account has a customer. ``charged``:
    its plan has a price for the meter, or may have one. ``early``: the period ended as
    ``ended_early`` says.
    """
    if ends_at is None:
        if not known:
            return Placement.UNKNOWN
        return Placement.NOT_SUBSCRIBED if charged else Placement.NOT_CHARGED
    if answered_at >= ends_at + grace:
        return Placement.AFTER_FINALISATION
    if early:
        return Placement.ENDED_EARLY
    return Placement.IN_PERIOD if answered_at < ends_at else Placement.IN_GRACE


def ended_early(change: SubscriptionChanged) -> bool:
    """Whether a subscription was canceled at once, within its period and not at a set time.

    Stripe then bills the usage of that period only to who asks for it: `invoice_now` is false by
    default (https://docs.stripe.com/api/subscriptions/cancel), and what was asked for is not shown.
    """
    ended, end = change.ended_at, change.period_end
    if ended is None or end is None or ended >= end:
        return False
    return change.cancel_at is None or ended < change.cancel_at


def grace_note(
    grace: timedelta, *, window: timedelta, retries: timedelta, lag: timedelta
) -> str | None:
    """Return what to do if usage of a period's end may come after its invoice is final.

    Its report waits for the end of its ``window``, may wait in each of the ``retries``, and Stripe
    may take its ``lag`` to count it.
    """
    needed = window + retries + lag
    if grace >= needed:
        return None
    parts = ", ".join(
        f"{name} {part.total_seconds():.0f}"
        for name, part in (("window", window), ("retry tiers", retries), ("Stripe's lag", lag))
    )
    return (
        f"invoices are final {grace.total_seconds():.0f} s after their period, and its last usage"
        f" may take {needed.total_seconds():.0f} s ({parts}): set Stripe's invoice grace period"
        f" to {ceil(needed / timedelta(hours=1))} h, and INVOICE_GRACE_SECONDS likewise"
    )
