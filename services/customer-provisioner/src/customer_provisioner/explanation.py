"""A user's way to its customer in words, for support: never an address or a name."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from customer_provisioner.profile import (
    Create,
    InHand,
    LookUpFirst,
    Nothing,
    Profile,
    StepTaken,
    decide,
)
from nexus_service.console import rfc_3339


def explain(profile: Profile, history: Sequence[StepTaken], now: datetime) -> Iterator[str]:
    """Yield what is so, what was done, and what is next."""
    yield f"user {profile.user_id}: {profile.state}"
    yield f"customer: {profile.stripe_customer_id or 'none'} (generation {profile.generation})"
    yield f"idempotency key: {profile.idempotency_key}, {profile.attempts} attempts"
    if profile.last_fault is not None:
        yield f"last fault: {profile.last_fault}"
    for step in history:
        detail = f" ({step.detail})" if step.detail else ""
        yield f"{rfc_3339(step.at)} generation {step.generation} {step.step}{detail}"
    yield f"next: {next_step(profile, now)}"


def next_step(profile: Profile, now: datetime) -> str:
    """Say what happens next for a user, and who does it."""
    if profile.refused_as is not None:
        return (
            "a person's move, as Stripe refused the customer: publish user.created with another "
            "address, or requeue the dead letter to try the same one again"
        )
    match decide(profile, now):
        case Nothing() if profile.announced_generation < profile.generation:
            return "the service announces the customer within seconds"
        case Nothing():
            return "nothing: there is a customer, and the other services were told"
        case InHand():
            until = rfc_3339(profile.claimed_until or now)
            return f"an attempt is in hand, at the latest until {until}"
        case LookUpFirst():
            return f"the customer is looked for at Stripe, else created: {_when(profile)}"
        case Create():
            again = "created again" if profile.call_started_at else "created"
            return f"the customer is {again} under this key: {_when(profile)}"


def _when(profile: Profile) -> str:
    return f"with the user's message, or by the sweep from {rfc_3339(profile.due_at)} on"
