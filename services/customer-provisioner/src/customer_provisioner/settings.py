"""What customer-provisioner is told from outside."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from customer_provisioner.api_keys import ApiKey, read_api_keys
from nexus_service.settings import ServiceSettings, Token


class StripeSettings(BaseModel):
    """How Stripe is reached."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Token
    """A secret or restricted key: it writes and reads customers."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^/\s]+)?$")
    """Where Stripe is, for an emulator; empty: the real one."""


class Settings(StripeSettings, ServiceSettings):
    """All that the running service is told."""

    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(read_api_keys)] = ()
    """`name:sha256:sources:types`, comma-separated, for `POST /v1/customers`; empty closes it."""
