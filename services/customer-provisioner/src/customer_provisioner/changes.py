"""What changes about a user, and what follows at Stripe: values and decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from nexus_contracts import UserUpdated

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
"""How far ahead of our clock the time of a change may be. A later one would outrank all that
follow."""


@dataclass(frozen=True, slots=True)
class UserChange:
    """One row of ``user_changes``: what ``user.updated`` said of a user.

    Each field has the value of the event with the latest time, and that time; both are None if no
    event had the field.

    Attributes:
        user_id: The user, who may be unknown yet.
        email: The address.
        email_as_of: The time of the event that said so.
        name: The name; empty if the user has none any more.
        name_as_of: The time of the event that said so.
        revision: Rises with each change of what the customer must have.
        waiting_since: Since when the customer at Stripe may lack something; None if it has all.
        claimed_until: When the claim of the attempt in progress ends.
        last_fault: Why the last failed attempt failed, without any value.
        refused_as: Why Stripe refuses the change, without any value.
    """

    user_id: UUID
    email: str | None = field(default=None, repr=False)
    email_as_of: datetime | None = None
    name: str | None = field(default=None, repr=False)
    name_as_of: datetime | None = None
    revision: int = 1
    waiting_since: datetime | None = None
    claimed_until: datetime | None = None
    last_fault: str | None = None
    refused_as: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send the change to the user's customer; a repetition is harmless."""

    user_id: UUID
    customer_id: str
    revision: int
    body: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoCustomer:
    """Wait until the user has a customer."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """Leave the change to the attempt that has claimed it."""


@dataclass(frozen=True, slots=True)
class UpToDate:
    """Nothing: the customer has all that is known."""


NextStep = Send | NoCustomer | InProgress | UpToDate


def merge(stored: UserChange, update: UserUpdated, time: datetime, now: datetime) -> UserChange:
    """Return what is known of a user after an ``update`` of this ``time``.

    In whatever order updates arrive, the result is the same: for each field the latest counts, and
    of two at one time the greater value.
    """
    merged = stored
    if _is_newer(update.email, time, stored.email, stored.email_as_of):
        merged = replace(merged, email=update.email, email_as_of=time)
    if _is_newer(update.name, time, stored.name, stored.name_as_of):
        merged = replace(merged, name=update.name, name_as_of=time)
    if (merged.email, merged.name) == (stored.email, stored.name):
        return merged
    return replace(
        merged,
        revision=stored.revision + 1,
        waiting_since=stored.waiting_since or now,
        refused_as=None,
    )


def next_step(change: UserChange, customer_id: str | None, now: datetime) -> NextStep:
    """Decide what follows from ``change`` for a user with this customer."""
    if change.waiting_since is None:
        return UpToDate()
    if customer_id is None:
        return NoCustomer()
    if change.claimed_until is not None and change.claimed_until > now:
        return InProgress()
    said = {"email": change.email, "name": change.name}
    body = {name: value for name, value in said.items() if value is not None}
    return Send(change.user_id, customer_id, change.revision, body)


def _is_newer(said: str | None, time: datetime, stored: str | None, as_of: datetime | None) -> bool:
    if said is None:
        return False
    return as_of is None or (time, said) > (as_of, stored or "")
