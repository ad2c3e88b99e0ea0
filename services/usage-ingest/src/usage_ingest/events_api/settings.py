"""The settings of the events API."""

from nexus_messaging.settings import BrokerSettings
from nexus_service.api_keys import ApiSettings
from nexus_service.settings import ProcessSettings


class Settings(BrokerSettings, ApiSettings, ProcessSettings):
    """Its broker user is `publisher`; it has no database."""
