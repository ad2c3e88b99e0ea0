"""A usage report, and the request to Stripe that is made of it.

Pure: values in, values out.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from nexus_contracts import UsageRecorded
from nexus_stripe.meters import CUSTOMER_KEY, VALUE_KEY

_KEY: Final = re.compile(r"([A-Za-z0-9._:-]{1,100}):([1-9][0-9]{0,8})")
"""An identifier as `usage.recorded` has them, and a number that PostgreSQL's integer holds: more
often no report is ever called."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be equal for two reports to be the same, if they have the same identifier."""

    report_id: UUID
    stripe_customer_id: str
    meter: str
    value: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """One customer's usage of one meter in one window, never changed once it was published.

    ``claim_id``, ``event_count`` and ``late`` are not sent to Stripe: a ledger that lost the report
    finds by them what it sums up. A report of an older publisher has no claim.
    """

    identifier: str
    facts: Facts
    dimensions: tuple[tuple[str, str], ...] = ()
    claim_id: UUID | None = None
    event_count: int | None = None
    late: bool = False

    @classmethod
    def of(cls, data: UsageRecorded) -> "Report":
        """Read the report out of the event that carries it."""
        facts = Facts(
            report_id=data.report_id,
            stripe_customer_id=data.stripe_customer_id,
            meter=data.meter,
            value=data.value,
            occurred_at=data.occurred_at,
        )
        return cls(
            data.identifier,
            facts,
            tuple(sorted((data.dimensions or {}).items())),
            data.claim_id,
            data.event_count,
            data.late,
        )

    @property
    def customer_and_meter(self) -> tuple[str, str]:
        """Return what Stripe takes one call at a time for."""
        return (self.facts.stripe_customer_id, self.facts.meter)

    def request(self) -> dict[str, Any]:
        """Return the parameters of ``POST /v1/billing/meter_events``.

        Our own keys win over a dimension of the same name: a dimension must not redirect a charge.
        """
        return {
            "event_name": self.facts.meter,
            "identifier": self.identifier,
            "timestamp": int(self.facts.occurred_at.timestamp()),
            "payload": {
                **dict(self.dimensions),
                CUSTOMER_KEY: self.facts.stripe_customer_id,
                VALUE_KEY: str(self.facts.value),
            },
        }

    def request_digest(self) -> bytes:
        """Return the SHA-256 of the request: another request must not have the same key."""
        canonical = json.dumps(self.request(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).digest()


def idempotency_key(identifier: str, key_n: int) -> str:
    """Return the Idempotency-Key of a call.

    It begins with the identifier because Stripe's asynchronous error reports name the key, not the
    identifier (https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
    """
    return f"{identifier}:{key_n}"


def attempt_of(key: str) -> tuple[str, int] | None:
    """Return the identifier and the number in an idempotency key, None if it is none of ours."""
    found = _KEY.fullmatch(key)
    return (found[1], int(found[2])) if found else None
