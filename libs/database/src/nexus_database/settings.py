"""The setting of the database, shared by all programs that use it."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from nexus_database.url import DatabaseUrl
from nexus_messaging.addresses import require_scheme


def _database_url(url: SecretStr) -> SecretStr:
    require_scheme(url.get_secret_value(), "postgresql://", "postgres://")
    DatabaseUrl.of(url.get_secret_value())
    return url


class DatabaseSettings(BaseModel):
    """The address of the database and the login."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)]
    """`postgresql://role:password@host:port/database`, the service's role, not the owner's;
    `host1:port,host2:port` for several, and libpq's parameters."""
