"""Whether a report reached an invoice: its time and its answer's, against billing periods. Pure.

Stripe bills usage with the period that its timestamp lies in, if it comes before the invoice is
final: an hour after the period's end by default, up to three days by a setting there
(https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period).
"""

from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil


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
    UNKNOWN = "unknown"
    """The account's subscriptions were not read yet."""


def place(
    answered_at: datetime,
    ends_at: datetime | None,
    grace: timedelta,
    *,
    known: bool,
    charged: bool,
) -> Placement:
    """Place a report that Stripe accepted at ``answered_at``.

    ``ends_at`` is the end of the period that its usage lies in, ``None`` if there is none.
    ``known``: the account's subscriptions were read since the account has a customer. ``charged``:
    its plan has a price for the meter, or may have one.
    """
    if ends_at is None:
        if not known:
            return Placement.UNKNOWN
        return Placement.NOT_SUBSCRIBED if charged else Placement.NOT_CHARGED
    if answered_at < ends_at:
        return Placement.IN_PERIOD
    return Placement.IN_GRACE if answered_at < ends_at + grace else Placement.AFTER_FINALISATION


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
