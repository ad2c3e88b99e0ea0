"""`user.created`: the platform has a new user, who is to have a customer at Stripe."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, StripeCustomerId
from nexus_contracts.wording import worded_pattern

_Address = Annotated[
    str,
    Field(
        min_length=3,
        max_length=512,
        pattern=worded_pattern(r"^[^\s@\x00]+@[^\s@\x00]+$", "must be an e-mail address"),
    ),
]
"""Shape only: whether an address exists is not ours to judge. Stripe takes 512 characters."""

Email = Annotated[_Address, Field(repr=False)]
OptionalEmail = Annotated[_Address | None, Field(repr=False)]
OptionalName = Annotated[
    str | None,
    Field(
        max_length=256,
        pattern=worded_pattern(r"^[^\x00-\x1f\x7f]*$", "must have no control characters"),
        repr=False,
    ),
]
"""Stripe takes 256 characters."""


class UserCreatedV1(EventData):
    """One user. Address and name are personal and stay out of every repr."""

    TYPE: ClassVar[str] = "user.created.v1"

    user_id: Annotated[UUID, BILLED]
    """The user, as tool runs name him."""
    email: Email
    """The address that the user's customer at Stripe gets."""
    name: OptionalName = None
    """The name that the user's customer at Stripe gets."""


class UserCreatedV2(EventData):
    """One user, perhaps without an address, perhaps with a customer that exists at Stripe already.

    Address and name are personal and stay out of every repr.
    """

    TYPE: ClassVar[str] = "user.created.v2"

    user_id: Annotated[UUID, BILLED]
    """The user, as tool runs name him."""
    email: OptionalEmail = None
    """The address that a new customer at Stripe gets. Null or absent: it gets none."""
    name: OptionalName = None
    """The name that a new customer at Stripe gets."""
    stripe_customer_id: Annotated[StripeCustomerId | None, BILLED] = None
    """The customer that the user has at Stripe already: it is charged, and no other is created.
    Null or absent: a customer is created."""


UserCreated = UserCreatedV1
"""What is published where it can say all: every release reads it."""


def newest(user: UserCreatedV1 | UserCreatedV2) -> UserCreatedV2:
    """Return the user as version 2 says it; version 1 is a user without a customer at Stripe."""
    if isinstance(user, UserCreatedV2):
        return user
    # What version 1 accepts, version 2 does, too: nothing is validated again.
    return UserCreatedV2.model_construct(user_id=user.user_id, email=user.email, name=user.name)


def oldest(user: UserCreatedV2) -> UserCreatedV1 | UserCreatedV2:
    """Return the user in the oldest version that can say it.

    During a rolling upgrade processes of the previous release consume, too.
    """
    if user.email is None or user.stripe_customer_id is not None:
        return user
    return UserCreatedV1(user_id=user.user_id, email=user.email, name=user.name)
