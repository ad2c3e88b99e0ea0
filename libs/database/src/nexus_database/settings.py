"""Where the database is, as every program that uses it is told."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from nexus_database.url import DatabaseUrl
from nexus_messaging.addresses import require_scheme


def _database_url(url: SecretStr) -> SecretStr:
    require_scheme(url.get_secret_value(), "postgresql://", "postgres://")
    DatabaseUrl.of(url.get_secret_value())
    return url


class DatabaseSettings(BaseModel):
    """Where the database is, and as whom."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)]
    """`postgresql://role:password@host:port/database`, the service's role, not the owner's;
    `host1:port,host2:port` for several, and libpq's parameters."""
