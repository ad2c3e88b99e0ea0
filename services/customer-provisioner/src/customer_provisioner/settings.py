"""The settings of customer-provisioner, from environment variables."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from customer_provisioner.api_keys import ApiKey, read_api_keys
from nexus_service.settings import ServiceSettings, Token


class StripeSettings(BaseModel):
    """How Stripe is reached."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Token
    """A secret or restricted key that may write and read customers."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^/\s]+)?$")
    """The address of an emulator; empty for Stripe itself."""


class Settings(StripeSettings, ServiceSettings):
    """All settings of the running service."""

    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(read_api_keys)] = ()
    """`name:sha256:sources:types`, comma-separated, for `/v1/customers`; empty: every request is
    answered with 401."""
