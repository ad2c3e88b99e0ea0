"""The settings of customer-provisioner and of its commands, from environment variables."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from nexus_database.settings import DatabaseSettings
from nexus_messaging.addresses import require_scheme
from nexus_messaging.settings import BrokerSettings
from nexus_service.api_keys import ApiSettings
from nexus_service.settings import ServiceSettings, Token
from nexus_stripe.webhook_settings import WebhookSettings


class StripeSettings(BaseModel):
    """How Stripe is reached."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Token
    """A secret or restricted key that may write and read customers and, for webhooks, read
    subscriptions, products and billing meters."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^/\s]+)?$")
    """The address of an emulator; empty for Stripe itself."""


class PlanSettings(BaseModel):
    """Which plans there are."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    plans_file: str = ""
    """The path of the plan file, see `libs/plans`; empty: subscriptions are for no plan."""


class SubscriptionSettings(StripeSettings, WebhookSettings):
    """What following subscriptions needs: without a webhook secret they are not followed."""


class Settings(SubscriptionSettings, PlanSettings, ApiSettings, ServiceSettings):
    """All settings of the running service."""


class PublishSettings(DatabaseSettings, BrokerSettings):
    """What the commands that publish need."""


class CustomerSettings(DatabaseSettings, StripeSettings):
    """What linking or replacing a customer needs."""


def _postgresql_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        require_scheme(url.get_secret_value(), "postgresql://", "postgres://")
    return url


class BackfillSettings(PublishSettings):
    """What a backfill needs."""

    source_database_url: Annotated[SecretStr | None, AfterValidator(_postgresql_url)] = None
    """The database of another service that `--from-database` reads."""
