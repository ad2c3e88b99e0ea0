"""The setting that every program with a broker connection has."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from nexus_messaging.addresses import hosts_of, require_scheme


def _broker_url(url: SecretStr) -> SecretStr:
    require_scheme(url.get_secret_value(), "amqp://", "amqps://")
    hosts_of(url.get_secret_value())
    return url


AmqpUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
"""Where the broker is, with its login and its vhost."""


class BrokerSettings(BaseModel):
    """Where the broker is. Field ``amqp_url`` is read from ``AMQP_URL``, and so on."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    amqp_url: AmqpUrl
    """`amqp://` or `amqps://user:password@host:port/vhost`; `host1:port,host2:port` for several."""
