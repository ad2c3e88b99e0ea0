"""`customer.provisioned`: a user has a customer at Stripe."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import StripeCustomerId


class CustomerProvisionedV1(EventData):
    """The customer to bill. A higher ``generation`` replaces a lower one, never the reverse."""

    TYPE: ClassVar[str] = "customer.provisioned.v1"

    user_id: UUID
    stripe_customer_id: StripeCustomerId
    generation: Annotated[int, Field(ge=1, le=1_000_000)]


CustomerProvisioned = CustomerProvisionedV1
