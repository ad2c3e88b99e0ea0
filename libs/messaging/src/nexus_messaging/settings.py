"""Settings from environment variables, each also as ``NAME_FILE`` naming a file that holds it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from nexus_contracts.wording import rule
from nexus_messaging.flood import FloodLimit


class SettingsError(Exception):
    """Everything that is wrong with the settings, in one text that repeats none of their values."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _address(*schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(schemes):
            raise ValueError(f"must begin with {' or '.join(schemes)}")
        try:
            parts = urlsplit(url.get_secret_value())
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:  # its own text repeats the address, password and all
            usable = False
        if not usable:
            raise ValueError("is no address; are special characters in its password quoted?")
        return url

    return AfterValidator(check)


AmqpUrl = Annotated[SecretStr, _address("amqp://", "amqps://")]
"""The address of the broker, with its login and its vhost."""


class BrokerSettings(BaseModel):
    """Where the broker is. Field ``amqp_url`` is read from ``AMQP_URL``, and so on."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    amqp_url: AmqpUrl
    """`amqp://` or `amqps://user:password@host:port/vhost`."""


class DatabaseSettings(BaseModel):
    """Where the database is, and as whom."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    database_url: Annotated[SecretStr, _address("postgresql://", "postgres://")]
    """`postgresql://role:password@host:port/database`, the service's role, not the owner's."""


class ServiceSettings(DatabaseSettings, BrokerSettings):
    """What every service is told."""

    http_host: str = "127.0.0.1"
    """Where `/healthz`, `/readyz` and `/metrics` listen."""
    http_port: int = Field(8080, ge=1, le=65535)
    """Their port."""
    shutdown_grace_seconds: float = Field(20.0, gt=0)
    """How long SIGTERM leaves to finish or hand back what is in hand."""
    dead_letter_share_limit: float = Field(0.5, gt=0, le=1)
    """When more than this share of a source's window is dead-lettered, its further dead letters are
    held back; when most sources are, the queue's consumption stops. `1`: neither ever happens."""
    dead_letter_window: int = Field(1000, ge=10, le=100_000)
    """How many of the last messages, of a source or of a queue, that were processed or
    dead-lettered the share is of."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`json`, an object a line; `console` for people; `auto`: `console` on a terminal only."""

    def flood_limit(self) -> FloodLimit:
        """Return when a queue counts as flooded."""
        return FloodLimit(self.dead_letter_share_limit, self.dead_letter_window)


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load(kind: type[SettingsT], environment: Mapping[str, str] = os.environ) -> SettingsT:
    """Read ``kind``'s fields from the environment.

    Raises:
        SettingsError: names every missing, unreadable and invalid variable at once.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in kind.model_fields:
        name = field.upper()
        try:
            value = _value(name, environment)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE: can't be read ({type(error).__name__})")
            continue
        if value is not None:
            values[field] = value
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        unread = {problem.partition("_FILE:")[0] for problem in problems}
        problems += [text for name, text in _problems(error) if name not in unread]
    else:
        if not problems:
            return settings
    raise SettingsError(*problems)


def _value(name: str, environment: Mapping[str, str]) -> str | None:
    if path := environment.get(f"{name}_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    return environment.get(name) or None


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    named = []
    for detail in error.errors(include_input=False, include_url=False):
        name = str(detail["loc"][0]).upper() if detail["loc"] else "settings"
        missing = detail["type"] == "missing"
        text = f"{name}: not set (nor {name}_FILE)" if missing else f"{name}: {rule(detail)}"
        named.append((name, text))
    return named
