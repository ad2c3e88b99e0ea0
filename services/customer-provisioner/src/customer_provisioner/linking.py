"""Whether a customer at Stripe may become a user's: values and the decision only."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from uuid import UUID

from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason


class CustomerStatus(Enum):
    """What Stripe says about a customer's id. Stripe still knows deleted customers."""

    EXISTS = auto()
    DELETED = auto()
    UNKNOWN = auto()
    OTHER_MODE = auto()


@dataclass(frozen=True, slots=True)
class FoundCustomer:
    """A customer at Stripe; ``marked_for`` is its ``metadata.user_id``."""

    status: CustomerStatus
    marked_for: str | None = None


class LinkFault(StrEnum):
    """Why a customer is not linked to a user."""

    NOT_FOUND = "Stripe has no such customer"
    OTHER_MODE = "the customer is of the other mode (live, test)"
    DELETED = "the customer is deleted"
    MARKED = "the customer is another user's by its metadata.user_id"
    TAKEN = "the customer is another user's by our table"
    OTHER_CUSTOMER = "the user has another customer"


class LinkRefusedError(PermanentError):
    """The customer is not linked to the user."""

    def __init__(self, fault: LinkFault) -> None:
        other = fault is LinkFault.OTHER_CUSTOMER
        super().__init__(Reason.OTHER_CUSTOMER if other else Reason.FOREIGN_CUSTOMER, fault.value)


_BY_STATUS = {
    CustomerStatus.UNKNOWN: LinkFault.NOT_FOUND,
    CustomerStatus.OTHER_MODE: LinkFault.OTHER_MODE,
    CustomerStatus.DELETED: LinkFault.DELETED,
}


def link_fault(found: FoundCustomer, user_id: UUID) -> LinkFault | None:
    """Return why ``found`` can't be linked to the user, by what Stripe says; None if it can."""
    if found.status in _BY_STATUS:
        return _BY_STATUS[found.status]
    if found.marked_for and found.marked_for.lower() != str(user_id):
        return LinkFault.MARKED
    return None
