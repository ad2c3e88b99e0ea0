"""A user's profile and the next step towards its customer at Stripe: values and decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

from customer_provisioner.linking import LinkFault
from nexus_contracts import CustomerProvisioned, Event, UserCreatedV2

SOURCE: Final = "customer-provisioner"

KEY_REPEATABLE_FOR: Final = timedelta(hours=20)
"""How long after its first use an idempotency key may be sent again.

Stripe keeps keys for at least 24 hours (https://docs.stripe.com/api/idempotent_requests); the
other four hours are for a call that is slow to arrive.
"""

LEASE: Final = timedelta(seconds=15)
"""How long a claim keeps other attempts away: a call to Stripe times out after ten seconds.

The claim only saves calls. What keeps two attempts from making two customers is their
idempotency key.
"""

CREATED_WITHIN: Final = timedelta(hours=1)
"""How far before and after the time in which a key is repeated its customer may have been created.

It covers the difference of two clocks and a call that was slow to arrive.
"""

SWEEP_DELAY: Final = timedelta(minutes=5)
"""How long the sweep leaves a user to the message that brought it."""


class State(StrEnum):
    """Whether a user has a customer."""

    PROVISIONING = "provisioning"
    PROVISIONED = "provisioned"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt works on. It is outdated once the profile has another generation or key."""

    user_id: UUID
    generation: int
    key_n: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One row of ``user_profiles``.

    Attributes:
        user_id: The platform's user.
        email: The first address the user came with, if there was one.
        name: The first name, if there was one.
        state: Whether there is a customer.
        generation: How many customers the user has had, including the current or next one.
        create_request: The body to create the customer with, the same on every repetition.
        key_n: Number of the idempotency key within the generation, from 1.
        key_spent: Whether the key can't bring a customer any more.
        call_started_at: When the key was first sent; None if never.
        claimed_until: When the claim of the attempt in progress ends.
        due_at: From when on the sweep takes care of the user.
        attempts: Calls that create a customer, made for this generation.
        last_fault: Why the last failed attempt failed, without any value.
        refused_as: Why Stripe refuses the customer, without any value.
        stripe_customer_id: The customer.
        provisioned_at: When the customer was stored here.
        announced_generation: The last generation published as ``customer.provisioned``; 0 for none.
        traceparent: The trace in which the customer was stored, if it was traced.
        link_to: The customer at Stripe to link, instead of creating one; None once it is linked.
        organisation: Whether it is an organisation's account, and no user's.
        deleted_customer_id: The last customer of it that Stripe said it has deleted.
    """

    user_id: UUID
    email: str | None = field(repr=False)
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
    link_to: str | None = None
    organisation: bool = False
    deleted_customer_id: str | None = None

    @property
    def customer_deleted(self) -> bool:
        """Whether Stripe has deleted the present customer."""
        return self.stripe_customer_id is not None and (
            self.deleted_customer_id == self.stripe_customer_id
        )

    @property
    def idempotency_key(self) -> str:
        """Return the key under which Stripe creates at most one customer."""
        key = f"customer-create:{self.user_id}:{self.generation}"
        return key if self.key_n == 1 else f"{key}:{self.key_n}"

    @property
    def attempt(self) -> Attempt:
        """Return what an attempt made now would work on."""
        return Attempt(self.user_id, self.generation, self.key_n)


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of users, and since when the longest-waiting one that is not refused has waited.

    ``customer_deleted``: those whose present customer Stripe has deleted.
    """

    provisioning: int
    refused: int
    unannounced: int
    waiting_since: datetime | None
    customer_deleted: int = 0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of ``provisioning_steps``."""

    at: datetime
    generation: int
    step: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Create:
    """Create the customer; under this key every repetition is the same customer."""

    attempt: Attempt
    key: str
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Link:
    """Link an existing customer.

    The call has the key under which a creation may be in progress. Stripe executes only one of the
    two: after a link no creation can follow, and after a creation the link is refused.
    """

    attempt: Attempt
    key: str
    customer_id: str


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """Refuse the customer that was to be linked."""

    fault: LinkFault


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look for the customer first: repeating the creation might make a second one.

    Attributes:
        attempt: What it works on.
        created_from: From when on the customer can have been created.
        created_to: Until when.
        former: Customers that the user had before, which are not looked for.
    """

    attempt: Attempt
    created_from: datetime
    created_to: datetime
    former: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InProgress:
    """Leave the user to the attempt that has claimed it."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Nothing: the user has this customer."""

    customer_id: str


NextStep = Create | Link | LinkRefused | LookUp | InProgress | Provisioned


def next_step(profile: Profile, now: datetime) -> NextStep:
    """Decide the next step towards the customer of ``profile``.

    A creation is repeated only under a key that Stripe still keeps and that is not spent.
    """
    if profile.stripe_customer_id is not None:
        return Provisioned(profile.stripe_customer_id)
    if profile.claimed_until is not None and profile.claimed_until > now:
        return InProgress()
    started = profile.call_started_at
    if profile.key_spent or (started is not None and now - started >= KEY_REPEATABLE_FOR):
        first = now if started is None else started
        last = first + KEY_REPEATABLE_FOR
        return LookUp(profile.attempt, first - CREATED_WITHIN, last + CREATED_WITHIN)
    if profile.link_to is not None:
        return Link(profile.attempt, profile.idempotency_key, profile.link_to)
    return Create(profile.attempt, profile.idempotency_key, profile.create_request)


def create_request(user: UserCreatedV2) -> dict[str, Any]:
    """Return the body that creates the customer of ``user`` at Stripe.

    What is missing or empty is left out: to Stripe an empty string means to unset the field.
    """
    given = {"email": user.email, "name": user.name}
    return {**{name: value for name, value in given.items() if value}, **mark(user.user_id)}


def mark(user_id: UUID) -> dict[str, Any]:
    """Return the parameters by which a customer at Stripe names its user."""
    return {"metadata": {"user_id": str(user_id)}}


def announcement(profile: Profile) -> Event[CustomerProvisioned]:
    """Return the event that announces the customer; made again, it is the same event.

    Raises:
        ValueError: the user has no customer.
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
