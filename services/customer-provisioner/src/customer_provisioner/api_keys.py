"""The bearer keys of the HTTP API: how they are configured, recognised, and what they allow."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

ANY: Final = "*"

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, of which only the SHA-256 is configured.

    ``sources`` and ``types`` are the CloudEvents sources and event names that it may publish.
    """

    name: str
    digest: str = field(repr=False)
    sources: tuple[str, ...]
    types: tuple[str, ...]

    def may_publish(self, event_type: str) -> bool:
        """Return whether the key allows ``event_type``, such as ``user.created.v1``."""
        name = event_type.rpartition(".")[0]
        return any(allowed in (ANY, name, event_type) for allowed in self.types)

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
