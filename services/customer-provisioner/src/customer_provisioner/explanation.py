"""A user's history and next step in words, for support: never an address or a name."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from customer_provisioner.profile import (
    Create,
    HistoryEntry,
    InProgress,
    LookUp,
    Profile,
    Provisioned,
    next_step,
)
from nexus_service.console import rfc_3339


def explain(profile: Profile, history: Sequence[HistoryEntry], now: datetime) -> Iterator[str]:
    """Yield the lines: the state, the history, and the next step."""
    yield f"user {profile.user_id}: {profile.state}"
    yield f"customer: {profile.stripe_customer_id or 'none'} (generation {profile.generation})"
    yield f"idempotency key: {profile.idempotency_key}, {profile.attempts} attempts"
    if profile.last_fault is not None:
        yield f"last fault: {profile.last_fault}"
    for entry in history:
        detail = f" ({entry.detail})" if entry.detail else ""
        yield f"{rfc_3339(entry.at)} generation {entry.generation} {entry.step}{detail}"
    yield f"next: {describe_next_step(profile, now)}"


def describe_next_step(profile: Profile, now: datetime) -> str:
    """Return what happens next for a user, and who does it."""
    if profile.refused_as is not None:
        return (
            "an operator's action, because Stripe refused the customer: publish user.created with "
            "another address, or requeue the dead letter to try the same address again"
        )
    match next_step(profile, now):
        case Provisioned() if profile.announced_generation < profile.generation:
            return "the service announces the customer within seconds"
        case Provisioned():
            return "nothing: the user has a customer, and it is announced"
        case InProgress():
            until = rfc_3339(profile.claimed_until or now)
            return f"an attempt is in progress, until {until} at the latest"
        case LookUp():
            return f"the customer is looked up at Stripe and, if missing, created: {_when(profile)}"
        case Create():
            again = "created again" if profile.call_started_at else "created"
            return f"the customer is {again} under this key: {_when(profile)}"


def _when(profile: Profile) -> str:
    return f"with the user's message, or by the sweep from {rfc_3339(profile.due_at)} on"
