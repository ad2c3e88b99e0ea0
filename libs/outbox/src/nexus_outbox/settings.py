"""The settings of nexus-outbox, from environment variables."""

from datetime import timedelta
from typing import Final

from pydantic import Field

from nexus_database.settings import DatabaseSettings
from nexus_messaging.settings import BrokerSettings
from nexus_service.settings import ProcessSettings

LONGEST_KEEP_DAYS: Final = 3650


class Settings(DatabaseSettings, BrokerSettings, ProcessSettings):
    """All settings of the running loop."""

    keep_sent_days: float = Field(14.0, gt=0, le=LONGEST_KEEP_DAYS)
    """How long a published event is kept, so that it can be published again after a restore of
    metering: longer than the time between metering's backups."""
    poll_seconds: float = Field(2.0, ge=0.1, le=60)
    """The longest time until a due event is found without a notification."""

    @property
    def keep_sent(self) -> timedelta:
        """How long a published event is kept."""
        return timedelta(days=self.keep_sent_days)
