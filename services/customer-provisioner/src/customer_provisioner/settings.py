"""What customer-provisioner is told from outside."""

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from customer_provisioner.api_keys import ApiKey, read_api_keys
from nexus_messaging.settings import ServiceSettings


class Settings(ServiceSettings):
    """Stripe's key and address, and who may use the HTTP door."""

    stripe_secret_key: SecretStr = Field(min_length=1)
    """A secret or restricted key: it writes and reads customers."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^\s]+)?$")
    """Where Stripe is, for an emulator; empty: the real one."""
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(read_api_keys)] = ()
    """`name:sha256:sources:types`, comma-separated, for `POST /v1/customers`; empty closes it."""
