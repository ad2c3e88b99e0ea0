"""The log of the requests to the account and their results, which tests can read."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT_REQUESTS = 10_000


@dataclass(slots=True)
class RequestRecord:
    """One request; ``status`` is None while it is processed and if no status was sent.

    Of an error only its code (or its type, without a code) and parameter are kept: messages may
    quote the request.
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
    """The results of all requests with one meter event identifier."""

    attempts: int = 0
    accepted: int = 0
    duplicates: int = 0
    replayed: int = 0
    last_status: int | None = None
    idempotency_keys: list[str] = field(default_factory=list)


class RequestLog:
    """The last requests, and the results by identifier since the start."""

    def __init__(self) -> None:
        self._requests: deque[RequestRecord] = deque(maxlen=KEPT_REQUESTS)
        self._attempts: dict[str, Attempts] = {}

    def begin(self, record: RequestRecord) -> None:
        """Log a request."""
        self._requests.append(record)
        if record.identifier is None:
            return
        attempts = self._attempts.setdefault(record.identifier, Attempts())
        attempts.attempts += 1
        key = record.idempotency_key
        if key is not None and key not in attempts.idempotency_keys:
            attempts.idempotency_keys.append(key)

    def count_accepted(self, identifier: str) -> None:
        """Count an accepted event of this identifier."""
        self._attempts.setdefault(identifier, Attempts()).accepted += 1

    def count_duplicate(self, identifier: str) -> None:
        """Count an event that was refused as a duplicate of this identifier."""
        self._attempts.setdefault(identifier, Attempts()).duplicates += 1

    def finish(self, record: RequestRecord) -> None:
        """Take over the result that was written into a request's record."""
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
