"""`user.updated`: the address or the name of a user has changed."""

from typing import ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.user_created import OptionalEmail, OptionalName


class UserUpdatedV1(EventData):
    """What is new about a user. Address and name are personal and stay out of every repr.

    For each field the event with the latest ``time`` counts, in whatever order they arrive.
    """

    TYPE: ClassVar[str] = "user.updated.v1"

    user_id: UUID
    """The user, as tool runs name him."""
    email: OptionalEmail = None
    """The address that the user's customer at Stripe gets. Null or absent: it stays."""
    name: OptionalName = None
    """The name that the user's customer at Stripe gets; empty: none. Null or absent: it stays."""


UserUpdated = UserUpdatedV1
