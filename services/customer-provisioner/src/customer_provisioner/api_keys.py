"""The bearer keys of the HTTP door: who holds one, and what it may be used for."""

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
    """One key, known by its SHA-256 only.

    ``sources`` and ``types`` are the CloudEvents sources and event names its holder may publish.
    """

    name: str
    digest: str = field(repr=False)
    sources: tuple[str, ...]
    types: tuple[str, ...]

    def may_publish(self, event_type: str) -> bool:
        """Tell whether the key covers ``event_type``, such as ``user.created.v1``."""
        name = event_type.rpartition(".")[0]
        return any(allowed in (ANY, name, event_type) for allowed in self.types)

    @property
    def source(self) -> str:
        """The source its holder's events are published under: the first allowed, or its name."""
        return self.name if self.sources[0] == ANY else self.sources[0]


def read_api_keys(value: object) -> object:
    """Read keys written ``name:sha256:sources:types,…``; several sources or types are joined by |.

    Raises:
        ValueError: one of them is written otherwise.
    """
    if not isinstance(value, str):
        return value
    return tuple(_api_key(written.strip()) for written in value.split(",") if written.strip())


def _api_key(written: str) -> ApiKey:
    name, _, rest = written.partition(":")
    digest, _, rest = rest.partition(":")
    # A source may be a URN, which holds colons; a type never does.
    sources, _, types = rest.rpartition(":")
    if not (name and _DIGEST.fullmatch(digest.lower()) and sources and types):
        raise ValueError("not name:sha256:sources:types")
    return ApiKey(name, digest.lower(), tuple(sources.split("|")), tuple(types.split("|")))


def holder(keys: Sequence[ApiKey], authorization: str | None) -> ApiKey | None:
    """Return the key that an ``Authorization`` header presents, in time that does not tell which.

    Args:
        keys: The keys there are.
        authorization: The header's value, ``Bearer …``; bytes that are no UTF-8 as Python's
            surrogates.
    """
    scheme, _, presented = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not presented.strip():
        return None
    digest = sha256(presented.strip().encode("utf-8", "surrogateescape")).hexdigest()
    matching = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    return matching[0] if matching else None
