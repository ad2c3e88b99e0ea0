"""The settings of nexus-outbox, from environment variables."""

from datetime import timedelta
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nexus_database.settings import DatabaseSettings
from nexus_messaging.settings import AmqpUrl
from nexus_service.settings import ProcessSettings, Token

MAX_KEEP_DAYS: Final = 3650
"""Ten years: so many days before now are a valid date."""


def _api_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("must be http:// or https:// with a host, and no login")
    # Some write the whole address of the events.
    return url.rstrip("/").removesuffix("/v1/events")


class TransportSettings(BaseModel):
    """Where events go: to the broker, or to the events API."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    amqp_url: AmqpUrl | None = None
    """The broker, as its user `publisher`: `amqp://` or `amqps://user:password@host:port/vhost`."""
    events_api_url: Annotated[str, AfterValidator(_api_url)] | None = None
    """Instead of `AMQP_URL`: the events API, such as `https://metering.example.com`."""
    events_api_key: Token | None = None
    """A key of the events API, for the types and sources of this outbox."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        has_broker = self.amqp_url is not None
        api = (self.events_api_url is not None, self.events_api_key is not None)
        if (has_broker, *api) not in {(True, False, False), (False, True, True)}:
            raise ValueError("set either AMQP_URL, or EVENTS_API_URL and EVENTS_API_KEY")
        return self


class Settings(DatabaseSettings, TransportSettings, ProcessSettings):
    """All settings of the running loop."""

    keep_sent_days: float = Field(14.0, gt=0, le=MAX_KEEP_DAYS)
    """How long a published event is kept, so that it can be published again after a restore of
    metering: longer than the time between metering's backups."""
    poll_seconds: float = Field(2.0, ge=0.1, le=60)
    """The longest time until a due event is found without a notification."""

    @property
    def keep_sent(self) -> timedelta:
        """How long a published event is kept."""
        return timedelta(days=self.keep_sent_days)
