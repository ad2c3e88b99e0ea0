"""A user's profile and what is to be done next about its customer at Stripe: values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

from nexus_contracts import CustomerProvisioned, Event, UserCreated

SOURCE: Final = "customer-provisioner"

SAFE_TO_REPEAT: Final = timedelta(hours=20)
"""Stripe keeps idempotency keys for at least 24 hours
(https://docs.stripe.com/api/idempotent_requests): four of them are left for a call on its way."""

LEASE: Final = timedelta(seconds=15)
"""How long an attempt keeps others away: a call to Stripe is given up after ten seconds.

It saves calls, nothing more: what keeps two attempts from making two customers is their key.
"""

PATIENCE: Final = timedelta(minutes=5)
"""How long the sweep leaves a user to the message that brought it."""


class State(StrEnum):
    """Whether a user has a customer."""

    PROVISIONING = "provisioning"
    PROVISIONED = "provisioned"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt works on: a later one with another generation or key overrules it."""

    user_id: UUID
    generation: int
    key_n: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One row of ``user_profiles``.

    Attributes:
        user_id: The platform's user.
        email: The first address the user came with.
        name: The first name, where there was one.
        state: Whether there is a customer.
        generation: How many customers the user has had, the current or coming one included.
        create_request: The body to create the customer with, the same on every repetition.
        key_n: Number of the idempotency key within the generation, from 1.
        key_spent: Stripe keeps an answer under the key that is no customer.
        call_started_at: When the key was first sent; None while it never was.
        claimed_until: When the attempt in hand is given up for dead.
        due_at: From when on the sweep takes care of the user.
        attempts: Calls made for the generation so far.
        last_fault: What came of the last attempt that failed, without any value.
        refused_as: Why Stripe will not have the customer, without any value.
        stripe_customer_id: The customer.
        provisioned_at: When the customer was stored here.
        announced_generation: The generation others were last told about; 0 for none.
        traceparent: The trace in which the customer came about, where it was traced.
    """

    user_id: UUID
    email: str = field(repr=False)
    name: str | None = field(repr=False)
    state: State
    generation: int
    create_request: Mapping[str, Any] = field(repr=False)
    key_n: int
    key_spent: bool
    call_started_at: datetime | None
    claimed_until: datetime | None
    due_at: datetime
    attempts: int
    last_fault: str | None
    refused_as: str | None
    stripe_customer_id: str | None
    provisioned_at: datetime | None
    announced_generation: int
    traceparent: str | None = None

    @property
    def idempotency_key(self) -> str:
        """Return the key under which Stripe carries the creation out at most once."""
        key = f"customer-create:{self.user_id}:{self.generation}"
        return key if self.key_n == 1 else f"{key}:{self.key_n}"

    @property
    def attempt(self) -> Attempt:
        """Return what an attempt made now would work on."""
        return Attempt(self.user_id, self.generation, self.key_n)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many users wait for what, and since when the longest has been waiting."""

    provisioning: int
    refused: int
    unannounced: int
    waiting_since: datetime | None


@dataclass(frozen=True, slots=True)
class StepTaken:
    """One line of a user's history."""

    at: datetime
    generation: int
    step: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Create:
    """Create the customer: the key makes every repetition the same customer."""

    attempt: Attempt
    key: str
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LookUpFirst:
    """See whether the customer exists: the key no longer says, or no longer protects."""

    attempt: Attempt
    email: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InHand:
    """Another attempt is being made."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """The user has a customer."""


Step = Create | LookUpFirst | InHand | Nothing


def decide(profile: Profile, now: datetime) -> Step:
    """Decide what to do next about the customer of ``profile``.

    A creation is repeated only under a key that Stripe still knows and that can still end well.
    """
    if profile.state is State.PROVISIONED:
        return Nothing()
    if profile.claimed_until is not None and profile.claimed_until > now:
        return InHand()
    started = profile.call_started_at
    if profile.key_spent or (started is not None and now - started >= SAFE_TO_REPEAT):
        return LookUpFirst(profile.attempt, profile.email)
    return Create(profile.attempt, profile.idempotency_key, profile.create_request)


def create_request(user: UserCreated) -> dict[str, Any]:
    """Return the body that creates ``user``'s customer at Stripe.

    An empty name is left out: to Stripe an empty string means to unset.
    """
    named = {"name": user.name} if user.name else {}
    return {"email": user.email, **named, "metadata": {"user_id": str(user.user_id)}}


def announcement(profile: Profile) -> Event[CustomerProvisioned]:
    """Return the event that tells of the customer: the same one however often it is made.

    Raises:
        ValueError: there is no customer to tell of.
    """
    if profile.stripe_customer_id is None or profile.provisioned_at is None:
        raise ValueError("a user without a customer can't be announced")
    return Event.of(
        CustomerProvisioned(
            user_id=profile.user_id,
            stripe_customer_id=profile.stripe_customer_id,
            generation=profile.generation,
        ),
        source=SOURCE,
        id=uuid5(profile.user_id, f"{CustomerProvisioned.TYPE}:{profile.generation}"),
        time=profile.provisioned_at,
    )
