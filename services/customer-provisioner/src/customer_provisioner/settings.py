"""The settings of customer-provisioner, from environment variables."""

from pydantic import BaseModel, ConfigDict, Field

from nexus_service.api_keys import ApiSettings
from nexus_service.settings import ServiceSettings, Token


class StripeSettings(BaseModel):
    """How Stripe is reached."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Token
    """A secret or restricted key that may write and read customers."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^/\s]+)?$")
    """The address of an emulator; empty for Stripe itself."""


class Settings(StripeSettings, ApiSettings, ServiceSettings):
    """All settings of the running service."""
