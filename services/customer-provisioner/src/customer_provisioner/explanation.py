"""A user's history and next step in words, for support: never an address or a name."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from customer_provisioner.assignments import Assignment, account_at
from customer_provisioner.changes import UserChange
from customer_provisioner.profile import (
    Create,
    HistoryEntry,
    InProgress,
    Link,
    LinkRefused,
    LookUp,
    Profile,
    Provisioned,
    next_step,
)
from customer_provisioner.subscriptions import Subscription
from nexus_service.console import rfc_3339

_REFUSED: Final = (
    "an operator's action, because Stripe refused the customer: publish user.created with another "
    "address, or requeue the dead letter to try the same address again"
)
_REFUSED_LINK: Final = (
    "an operator's action, because the customer to be linked was refused: correct the cause and "
    "requeue the dead letter, link another customer, or reprovision to have one created"
)

_CALLS: Final = {
    LookUp: "looked up at Stripe and, if missing, created or linked",
    Link: "checked at Stripe and linked",
    LinkRefused: "checked at Stripe and linked",
    Create: "created {again}under this key",
}


def explain(
    profile: Profile, history: Sequence[HistoryEntry], change: UserChange | None, now: datetime
) -> Iterator[str]:
    """Yield the lines: the state, the history, the next step, and what changed."""
    kind = "organisation" if profile.organisation else "user"
    yield f"{kind} {profile.user_id}: {profile.state}"
    if profile.link_to is not None:
        yield f"to be linked to: {profile.link_to}"
    yield f"customer: {profile.stripe_customer_id or 'none'} (generation {profile.generation})"
    if profile.customer_deleted:
        yield "the customer was deleted at Stripe, and usage for it is refused: reprovision"
    yield f"idempotency key: {profile.idempotency_key}, {profile.attempts} attempts"
    if profile.last_fault is not None:
        yield f"last fault: {profile.last_fault}"
    for entry in history:
        detail = f" ({entry.detail})" if entry.detail else ""
        yield f"{rfc_3339(entry.at)} generation {entry.generation} {entry.step}{detail}"
    yield f"next: {describe_next_step(profile, now)}"
    if change is not None:
        yield f"changes: {describe_change(profile, change)}"


def describe_next_step(profile: Profile, now: datetime) -> str:
    """Return what happens next for a user, and who does it."""
    if profile.refused_as is not None:
        return _REFUSED_LINK if profile.link_to is not None else _REFUSED
    match next_step(profile, now):
        case Provisioned():
            if profile.announced_generation == profile.generation:
                return "nothing: the user has a customer, and it is announced"
            return "the service announces the customer within seconds"
        case InProgress():
            until = rfc_3339(profile.claimed_until or now)
            return f"an attempt is in progress, until {until} at the latest"
        case step:
            again = "again " if profile.call_started_at else ""
            return f"the customer is {_CALLS[type(step)].format(again=again)}: {_when(profile)}"


def describe_change(profile: Profile, change: UserChange) -> str:
    """Return whether Stripe has what changed about a user, and what follows."""
    times = {"address": change.email_as_of, "name": change.name_as_of}
    said = ", ".join(f"{name} of {rfc_3339(at)}" for name, at in times.items() if at is not None)
    if change.waiting_since is None:
        return f"{said}: Stripe has it"
    if change.refused_as is not None:
        return f"{said}: Stripe refused it ({change.refused_as}); publish another user.updated"
    if profile.stripe_customer_id is None:
        return f"{said}: it waits for the customer"
    fault = f"; last fault: {change.last_fault}" if change.last_fault else ""
    return f"{said}: it is sent to Stripe by its message or by the sweep{fault}"


def _when(profile: Profile) -> str:
    return f"with the user's message, or by the sweep from {rfc_3339(profile.due_at)} on"


def explain_payer(
    user_id: UUID,
    assignments: Sequence[Assignment],
    subscriptions: Sequence[Subscription],
    now: datetime,
) -> Iterator[str]:
    """Yield the lines: who pays for a user, since when, and what the payer has subscribed to."""
    account_id = account_at(assignments, user_id, now)
    yield f"account: {'its own' if account_id == user_id else account_id}"
    for each in assignments:
        yield (
            f"assigned to {each.account_id} from {rfc_3339(each.since)} on, by {each.made_by} at "
            f"{rfc_3339(each.made_at)}, revision {each.revision}"
        )
    for subscription in subscriptions:
        yield describe_subscription(subscription)
    if not subscriptions:
        yield "subscriptions of the account: none"


def describe_subscription(subscription: Subscription) -> str:
    """Return what a subscription says, in one line."""
    seen = subscription.snapshot
    said = [seen.status, f"plan {seen.plan_type or 'unknown'}"]
    if seen.seats is not None:
        said.append(f"{seen.seats} seats")
    times = {
        "period from": seen.period_start,
        "to": seen.period_end,
        "trial until": seen.trial_end,
        "cancelled for": seen.cancel_at,
        "ended": seen.ended_at,
    }
    said += [f"{name} {rfc_3339(at)}" for name, at in times.items() if at is not None]
    return f"subscription {subscription.subscription_id}: {', '.join(said)}"
