"""The bearer keys of HTTP APIs: how they are made, configured, recognised, and what they allow."""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ANY: Final = "*"

ASSIGNING: Final = "user.assigned"
"""The type of a key that may say who pays for a user. No broker takes it from outside."""

USAGE: Final = "tool.executed"

ENTITLEMENTS_READ: Final = "entitlements.read"
USAGE_READ: Final = "usage.read"
RIGHTS: Final = (ENTITLEMENTS_READ, USAGE_READ)
"""Rights to read, for services: of every user's entitlements, of every user's usage."""

FULL_BATCH: Final = 1000
"""Events in one request at most."""

SECRET_BYTES: Final = 32
"""Random bytes of a new key: so many that a plain SHA-256 of it can't be guessed."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, of which only the SHA-256 is configured.

    ``sources`` and ``types`` are the CloudEvents sources and event names that it may publish; among
    the types are the rights to read.

    Raises:
        ValueError: it may publish tool runs and also say who pays for them.
    """

    name: str
    digest: str = field(repr=False)
    sources: tuple[str, ...]
    types: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a key with which one leaked secret could have any account pay for any run."""
        if self.may_assign and any(
            t in (ANY, USAGE) or t.startswith(f"{USAGE}.") for t in self.types
        ):
            raise ValueError(f"a key of {ASSIGNING} may not also be one of {USAGE}")

    @property
    def may_assign(self) -> bool:
        """Whether the key may say who pays for a user, which needs the type by its own name."""
        return ASSIGNING in self.types

    def may_publish(self, event_type: str) -> bool:
        """Return whether the key allows ``event_type``, such as ``user.created.v1``."""
        name = event_type.rpartition(".")[0]
        return any(allowed in (ANY, name, event_type) for allowed in self.types)

    def may_read(self, right: str) -> bool:
        """Return whether the key names ``right``, such as ``usage.read``.

        ``*`` does not grant it: such keys were made to publish, before there was anything to read.
        """
        return right in self.types

    def may_publish_as(self, source: str) -> bool:
        """Return whether the key allows events of ``source``."""
        return any(allowed in (ANY, source) for allowed in self.sources)

    @property
    def configured(self) -> str:
        """The key's entry in ``API_KEYS``."""
        return f"{self.name}:{self.digest}:{'|'.join(self.sources)}:{'|'.join(self.types)}"

    @property
    def source(self) -> str:
        """The source of events published with the key: the first allowed one, or the key's name."""
        return self.name if self.sources[0] == ANY else self.sources[0]


def read_api_keys(value: object) -> object:
    """Read keys in the form ``name:sha256:sources:types,…``, with ``|`` between sources or types.

    Raises:
        ValueError: a key has another form.
    """
    if not isinstance(value, str):
        return value
    return tuple(_read_api_key(part.strip()) for part in value.split(",") if part.strip())


def _read_api_key(text: str) -> ApiKey:
    name, _, rest = text.partition(":")
    digest, _, rest = rest.partition(":")
    # A source may be a URN, which has colons; a type has none.
    sources, _, types = rest.rpartition(":")
    if not (name and _DIGEST.fullmatch(digest.lower()) and sources and types):
        raise ValueError("not name:sha256:sources:types")
    return ApiKey(name, digest.lower(), tuple(sources.split("|")), tuple(types.split("|")))


class ApiSettings(BaseModel):
    """The settings of every HTTP API with keys."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(read_api_keys)] = ()
    """`name:sha256:sources:types`, comma-separated, with `|` between sources or types, as
    `make-api-key` prints it; empty: every request is answered with 401. Two entries may have the
    same name, while a key is replaced."""
    api_rate_limit: float = Field(1000.0, gt=0, allow_inf_nan=False)
    """Events per second that one key may send to one process; a request that is no batch counts
    as one. At once it may send 1,000, or as many as in a second."""

    @property
    def api_burst(self) -> float:
        """How many events a key may send at once: a full batch at least."""
        return max(self.api_rate_limit, FULL_BATCH)


def make_api_key(name: str, sources: Sequence[str], types: Sequence[str]) -> tuple[str, ApiKey]:
    """Make a key; return its secret, which is kept nowhere, and what is configured.

    Raises:
        ValueError: the name, a source or a type has a character that separates them, or the key
            would have two rights that no key may have at once.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(name, sha256(secret.encode()).hexdigest(), tuple(sources), tuple(types))
    try:
        read = read_api_keys(key.configured)
    except ValueError:
        read = None
    if read != (key,):
        raise ValueError("a name and a type have no colon, and neither they nor a source , or |")
    return secret, key


def key_of(authorization: str | None, keys: Sequence[ApiKey]) -> ApiKey | None:
    """Return the key in an ``Authorization`` header, if it is one of ``keys``.

    The comparison takes the same time for every key.

    Args:
        authorization: The header's value, ``Bearer …``. Bytes that are not UTF-8 are Python's
            surrogates.
        keys: The configured keys.
    """
    scheme, _, secret = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        return None
    digest = sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest()
    matching = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    return matching[0] if matching else None
