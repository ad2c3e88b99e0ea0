"""The settings of customer-provisioner and of its commands, from environment variables."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from nexus_contracts.fields import MeterName
from nexus_database.settings import DatabaseSettings
from nexus_messaging.addresses import require_scheme
from nexus_messaging.settings import BrokerSettings
from nexus_service.api_keys import ApiSettings
from nexus_service.settings import ServiceSettings, Token
from nexus_stripe.webhook_settings import WebhookSettings

_STRIPE_API_BASE: Final = r"^(https?://[^/\s]+)?$"


class StripeSettings(BaseModel):
    """How Stripe is reached."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Token
    """A secret or restricted key that may write and read customers and, for webhooks, read
    subscriptions, products and billing meters."""
    stripe_api_base: str = Field("", pattern=_STRIPE_API_BASE)
    """The address of an emulator; empty for Stripe itself."""


class PlanSettings(BaseModel):
    """Which plans there are."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    plans_file: str = ""
    """The path of the plan file, see `libs/plans`; empty: subscriptions are for no plan."""
    stripe_meter_event_name: MeterName | None = None
    """The meter that counts tool runs, as in usage-ingest; where it is set, the plan file's
    `default_meter` must be the same."""


class StoredPlanSettings(PlanSettings, DatabaseSettings):
    """What comparing the plan file with the stored subscriptions needs."""


def _refused(key: SecretStr | None) -> None:
    if key is not None:
        raise ValueError("is for the command `plans ensure` alone: no service has such a key")


class AdminSettings(PlanSettings):
    """What `plans ensure` needs."""

    stripe_admin_key: Token
    """A key that may write products, prices, billing meters and entitlements, and read
    subscriptions; given to this command alone."""
    stripe_api_base: str = Field("", pattern=_STRIPE_API_BASE)
    """The address of an emulator; empty for Stripe itself."""

    @property
    def live(self) -> bool:
        """Whether the key is of live mode."""
        return "_live_" in self.stripe_admin_key.get_secret_value()[:8]


class SubscriptionSettings(StripeSettings, WebhookSettings):
    """What following subscriptions needs: without a webhook secret they are not followed."""


class Settings(SubscriptionSettings, PlanSettings, ApiSettings, ServiceSettings):
    """All settings of the running service."""

    stripe_admin_key: Annotated[SecretStr | None, AfterValidator(_refused)] = None
    """Must not be set: it is for `plans ensure` alone."""


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
