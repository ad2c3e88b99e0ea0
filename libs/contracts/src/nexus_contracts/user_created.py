"""`user.created`: the platform has a new user, who is to become a customer at Stripe."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED
from nexus_contracts.wording import worded_pattern

Email = Annotated[
    str,
    Field(
        min_length=3,
        max_length=512,
        pattern=worded_pattern(r"^[^\s@\x00]+@[^\s@\x00]+$", "must be an e-mail address"),
        repr=False,
    ),
]
"""Shape only: whether an address exists is not ours to judge. Stripe takes 512 characters."""


class UserCreatedV1(EventData):
    """One user. Address and name are personal and stay out of every repr."""

    TYPE: ClassVar[str] = "user.created.v1"

    user_id: Annotated[UUID, BILLED]
    """The user, as tool runs name him."""
    email: Email
    """The address that the user's customer at Stripe gets."""
    name: Annotated[
        str | None,
        Field(
            max_length=256,
            pattern=worded_pattern(r"^[^\x00-\x1f\x7f]*$", "must have no control characters"),
            repr=False,
        ),
    ] = None
    """The name that the user's customer at Stripe gets."""


UserCreated = UserCreatedV1
