"""The settings of stripe-reporter, read from the environment."""

from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from nexus_contracts.meters import Meters
from nexus_service.settings import ServiceSettings, Token
from nexus_stripe.webhook_settings import WebhookSettings

NAME: Final = "stripe-reporter"
"""The service's name in logs, in metrics, and on its connections."""

SANDBOX_CALLS_PER_SECOND = 20.0
"""Stripe's sandboxes take 25 calls a second of all kinds together."""

LIVE_CALLS_PER_SECOND = 900.0
"""Stripe takes 1,000 meter events a second (https://docs.stripe.com/rate-limits). A second that
begins with all calls saved up (``limits.BURST_SECONDS``) has 990."""


SANDBOX_READS_PER_SECOND = 2.0
LIVE_READS_PER_SECOND = 5.0
"""A twentieth of what Stripe allows: 100,000 customers, one call each, in six hours."""


def _secret_key(key: SecretStr) -> SecretStr:
    if not key.get_secret_value().startswith(("sk_", "rk_")):
        raise ValueError("no secret or restricted key")
    return key


class StripeSettings(Meters):
    """How Stripe is reached, and which meters there are."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stripe_secret_key: Annotated[Token, AfterValidator(_secret_key)]
    """A secret or restricted key: it writes meter events, reads and creates meters, and reads sums
    and events."""
    stripe_api_base: str = Field("", pattern=r"^(https?://[^/\s]+)?$")
    """Where Stripe is, for an emulator; empty: the real one."""

    @property
    def live(self) -> bool:
        """Whether the key charges real money."""
        return "_live_" in self.stripe_secret_key.get_secret_value()[:8]


class Settings(StripeSettings, WebhookSettings, ServiceSettings):
    """The settings of the running service."""

    stripe_max_calls_per_second: float | None = Field(None, gt=0, le=10_000)
    """How fast Stripe is called at most; empty: 20 with a test key, 900 with a live one."""

    stripe_reads_per_second: float | None = Field(None, ge=0.1, le=100)
    """How fast Stripe's own sums are read at most by each process, beside the reports; empty: 2
    with a test key, 5 with a live one. Stripe takes 100 calls a second of all kinds but meter
    events."""

    stripe_summary_lag_seconds: Annotated[int, Field(ge=0, le=86_400)] = 3600
    """How long after its answer the sum of a report's hour is read: as long as usage-ingest's."""

    @property
    def reads_per_second(self) -> float:
        """Return how fast Stripe's sums may be read."""
        default = LIVE_READS_PER_SECOND if self.live else SANDBOX_READS_PER_SECOND
        return self.stripe_reads_per_second or default

    @property
    def calls_per_second(self) -> float:
        """Return how fast Stripe may be called."""
        default = LIVE_CALLS_PER_SECOND if self.live else SANDBOX_CALLS_PER_SECOND
        return self.stripe_max_calls_per_second or default
