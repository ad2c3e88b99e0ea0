"""The answer to a request, before it becomes HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stripe_emulator.errors import StripeError


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A JSON body under an HTTP status, with the headers this answer adds."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, refusal: StripeError) -> "HttpAnswer":
        """Return the answer of an error."""
        return cls(refusal.status, refusal.body, refusal.headers)
