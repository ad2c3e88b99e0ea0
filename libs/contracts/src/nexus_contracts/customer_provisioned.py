"""`customer.provisioned`: a user has a customer at Stripe."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, StripeCustomerId


class CustomerProvisionedV1(EventData):
    """The customer to bill. A higher ``generation`` replaces a lower one, never the reverse."""

    TYPE: ClassVar[str] = "customer.provisioned.v1"

    user_id: Annotated[UUID, BILLED]
    """The user whose runs are charged to the customer."""
    stripe_customer_id: Annotated[StripeCustomerId, BILLED]
    """The customer at Stripe."""
    generation: Annotated[int, Field(ge=1, le=1_000_000), BILLED]
    """Which of the user's customers it is, counted from 1: the highest one is charged."""


CustomerProvisioned = CustomerProvisionedV1
