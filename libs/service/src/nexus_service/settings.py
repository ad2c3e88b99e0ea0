"""Settings from environment variables, each also as ``NAME_FILE`` naming a file that holds it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from nexus_contracts.wording import rule
from nexus_database.settings import DatabaseSettings
from nexus_messaging.addresses import hosts_in
from nexus_messaging.flood import FloodLimit
from nexus_messaging.settings import BrokerSettings

BYTE_ORDER_MARK: Final = "\ufeff"
QUOTES: Final = ("'", '"')
DEFAULT_HTTP_PORT: Final = 8080


class SettingsError(Exception):
    """Settings are invalid. The text names all problems and quotes no value."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _validate_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise ValueError("must be one word of ASCII characters: is it more than the key alone?")
    return token


def _validate_host(host: str) -> str:
    try:
        [_] = hosts_in(f"[{host}]" if ":" in host else host, DEFAULT_HTTP_PORT)
    except ValueError:
        raise ValueError("must be one name or IP address, without a port") from None
    return host


Token = Annotated[SecretStr, AfterValidator(_validate_token)]
"""A secret for an HTTP header, which allows no spaces, line breaks or accents."""


class ProcessSettings(BaseModel):
    """The settings of every process that runs until SIGTERM."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    http_host: Annotated[str, AfterValidator(_validate_host)] = "127.0.0.1"
    """Where `/healthz`, `/readyz`, `/metrics` and the process's own routes listen."""
    http_port: int = Field(DEFAULT_HTTP_PORT, ge=1, le=65535)
    """Their port."""
    shutdown_grace_seconds: float = Field(20.0, gt=0)
    """How long SIGTERM leaves to finish or hand back what is in hand."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`json`, an object a line; `console` for people; `auto`: `console` on a terminal only."""


class ServiceSettings(DatabaseSettings, BrokerSettings, ProcessSettings):
    """The settings of every service that consumes queues and keeps a database."""

    amqp_fast_reading: bool = True
    """Deliveries are taken from the byte stream. `0`: aiormq reads them, at nearly twice the
    processor time of a recorded run; for comparison, should one ever be read wrongly."""
    dead_letter_share_limit: float = Field(0.5, gt=0, le=1)
    """When more than this share of a source's window is dead-lettered, its further dead letters are
    held back; when most sources are, the queue's consumption stops. `1`: neither ever happens."""
    dead_letter_window: int = Field(1000, ge=10, le=100_000)
    """How many of the last messages, of a source or of a queue, that were processed or
    dead-lettered the share is of."""

    def flood_limit(self) -> FloodLimit:
        """Return the limit above which a queue counts as flooded."""
        return FloodLimit(self.dead_letter_share_limit, self.dead_letter_window)


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load(kind: type[SettingsT], environment: Mapping[str, str] = os.environ) -> SettingsT:
    """Read ``kind``'s fields from the environment.

    Raises:
        SettingsError: its text names all missing, unreadable and invalid variables.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in kind.model_fields:
        name = field.upper()
        try:
            value = read_value(name, environment)
        except SettingsError as error:
            problems[name] = str(error)
            continue
        if value is not None:
            values[field] = value
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        problems = _problems(error) | problems
    else:
        if not problems:
            return settings
    raise SettingsError(*problems.values())


def read_value(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the value of the variable ``name`` or of the file in ``<name>_FILE``, if not empty.

    Raises:
        SettingsError: the file can't be read, or the value has unprintable characters.
    """
    file_variable = environment.get(f"{name}_FILE")
    source = f"{name}_FILE" if file_variable else name
    try:
        path = clean(file_variable or "")
        text = Path(path).read_text(encoding="utf-8") if path else environment.get(name, "")
        return clean(text) or None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{source}: can't be read ({type(error).__name__})") from None
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def clean(text: str) -> str:
    """Return ``text`` without a byte order mark, outer white space and one pair of quotes.

    Editors add a byte order mark. Files of variables keep the quotes that a shell would remove.

    Raises:
        ValueError: the value contains line breaks, other control characters or undecodable bytes.
    """
    text = text.removeprefix(BYTE_ORDER_MARK).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
        text = text[1:-1].strip()
    if not text.isprintable():
        raise ValueError("holds a line break or another character that can't be printed")
    return text


def _problems(error: ValidationError) -> dict[str, str]:
    problems = {}
    for detail in error.errors(include_input=False, include_url=False):
        if not detail["loc"]:
            problems[""] = rule(detail)  # of several settings, which it names
            continue
        name = str(detail["loc"][0]).upper()
        missing = detail["type"] == "missing"
        problems[name] = (
            f"{name}: not set (nor {name}_FILE)" if missing else f"{name}: {rule(detail)}"
        )
    return problems
