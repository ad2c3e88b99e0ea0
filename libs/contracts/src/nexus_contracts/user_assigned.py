"""`user.assigned`: whose account pays for a user's runs, and from when on."""

from typing import Annotated, ClassVar
from uuid import UUID

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, Moment, Revision


class UserAssignedV1(EventData):
    """From ``since`` on the account pays for the user's runs, until a later assignment begins.

    A user who was never assigned is their own account, and so is one who is assigned to their own
    id. Of two assignments from the same time on, the one of the higher ``revision`` holds.
    """

    TYPE: ClassVar[str] = "user.assigned.v1"

    user_id: Annotated[UUID, BILLED]
    """The user, as tool runs name them."""
    account_id: Annotated[UUID, BILLED]
    """The account that pays: an organisation's, or the user's own id."""
    since: Annotated[Moment, BILLED]
    """From when on: runs that ended before it stay with the account before."""
    revision: Annotated[Revision, BILLED]
    """Rises with every assignment, past those that a lost database had made."""


UserAssigned = UserAssignedV1
