"""A usage report as this service handles it: what is asked of Stripe, and what is told afterwards.

Pure: values in, values out.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from nexus_contracts import Event, UsageRecorded, UsageRejected, UsageReported
from nexus_messaging.reasons import Reason

SOURCE: Final = "stripe-reporter"

CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"
"""Stripe's defaults for the payload keys of a meter; ``meters ensure`` creates meters with them."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What makes a report that report: another one must not go under its identifier."""

    report_id: UUID
    stripe_customer_id: str
    meter: str
    value: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """One customer's usage of one meter in one window, never changed once it was published.

    ``claim_id`` and ``event_count`` are nothing to Stripe: by them a ledger that lost the report
    finds its events again. A report of an older publisher has no claim.
    """

    identifier: str
    facts: Facts
    dimensions: tuple[tuple[str, str], ...] = ()
    claim_id: UUID | None = None
    event_count: int | None = None

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
        )

    @property
    def lane(self) -> tuple[str, str]:
        """What Stripe takes one call at a time for: the customer and the meter."""
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
        """Return the SHA-256 of the request: another body must not go under the same key."""
        canonical = json.dumps(self.request(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).digest()


def idempotency_key(identifier: str, key_n: int) -> str:
    """Return the Idempotency-Key of a call.

    It begins with the identifier because Stripe's asynchronous error reports name the key, not the
    identifier (https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
    """
    return f"{identifier}:{key_n}"


def reported(report: Report, *, at: datetime, ever_unknown: bool) -> Event[UsageReported]:
    """Return the event that says Stripe has counted the report; the same one whenever repeated."""
    data = UsageReported(
        report_id=report.facts.report_id,
        identifier=report.identifier,
        at=at,
        ever_unknown=ever_unknown,
    )
    id_ = uuid5(report.facts.report_id, UsageReported.TYPE)
    return Event.of(data, source=SOURCE, id=id_, time=at)


def rejected(
    report: Report, *, at: datetime, reason: Reason, ever_unknown: bool, attempts: int
) -> Event[UsageRejected]:
    """Return the event that says the report was refused for good.

    ``attempts`` tells a later refusal of the same report, after an operator's move, from this one.
    """
    data = UsageRejected(
        report_id=report.facts.report_id,
        identifier=report.identifier,
        at=at,
        reason=reason.value,
        ever_unknown=ever_unknown,
    )
    id_ = uuid5(report.facts.report_id, f"{UsageRejected.TYPE}:{reason.value}:{attempts}")
    return Event.of(data, source=SOURCE, id=id_, time=at)
