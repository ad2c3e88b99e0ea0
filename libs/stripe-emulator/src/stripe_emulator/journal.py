"""The journal: what was asked of the account and how that ended, for tests to look at."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

REMEMBERED_REQUESTS = 10_000


@dataclass(slots=True)
class RequestRecord:
    """One request; ``status`` is None while it is worked on and when no status was sent.

    Of a refusal only its code (its type, where it has none) and parameter are kept: messages may
    quote what the request held.
    """

    at: float
    request_id: str
    method: str
    path: str
    idempotency_key: str | None
    identifier: str | None
    status: int | None = None
    replayed: bool = False
    fault: str | None = None
    error: str | None = None
    param: str | None = None


@dataclass(slots=True)
class Attempts:
    """What happened to one meter event identifier, over all requests that carried it."""

    attempts: int = 0
    accepted: int = 0
    duplicates: int = 0
    replayed: int = 0
    last_status: int | None = None
    idempotency_keys: list[str] = field(default_factory=list)


class Journal:
    """The last requests, and the attempts of every identifier since the start."""

    def __init__(self) -> None:
        self._requests: deque[RequestRecord] = deque(maxlen=REMEMBERED_REQUESTS)
        self._attempts: dict[str, Attempts] = {}

    def opened(self, record: RequestRecord) -> None:
        """Note that a request came in."""
        self._requests.append(record)
        if record.identifier is None:
            return
        attempts = self._attempts.setdefault(record.identifier, Attempts())
        attempts.attempts += 1
        key = record.idempotency_key
        if key is not None and key not in attempts.idempotency_keys:
            attempts.idempotency_keys.append(key)

    def accepted(self, identifier: str) -> None:
        """Note that an event with this identifier was counted."""
        self._attempts.setdefault(identifier, Attempts()).accepted += 1

    def refused_as_duplicate(self, identifier: str) -> None:
        """Note that an event was refused because its identifier is taken."""
        self._attempts.setdefault(identifier, Attempts()).duplicates += 1

    def closed(self, record: RequestRecord) -> None:
        """Note how a request ended, as written into its record."""
        if record.identifier is None:
            return
        attempts = self._attempts[record.identifier]
        attempts.last_status = record.status
        attempts.replayed += record.replayed

    def requests(self, limit: int) -> list[dict[str, Any]]:
        """Return the last ``limit`` requests as JSON, the newest last."""
        return [asdict(record) for record in list(self._requests)[-limit:]] if limit else []

    def attempts(self) -> dict[str, dict[str, Any]]:
        """Return the attempts of every identifier as JSON."""
        return {identifier: asdict(attempts) for identifier, attempts in self._attempts.items()}
