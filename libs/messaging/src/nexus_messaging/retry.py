"""What follows from what happened to a delivery: a pure decision over values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from nexus_contracts import ContractError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS, Tier

ATTEMPT: Final = "nexus-attempt"
WAITS: Final = "nexus-waits"
FIRST_FAILED_AT: Final = "nexus-first-failed-at"
REQUEUE_TO: Final = "nexus-requeue-to"

BUDGET: Final = 5
"""Deliveries a message gets while its failure is not understood."""

MAX_DETAIL: Final = 1024
"""Bytes of ``nexus-error``: headers and all must fit one AMQP frame of 128 KiB."""

HANDLED_ALONE_FROM: Final = 3
CRASHED_FROM: Final = 10


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is owed to the message any more.

    ``source``: who published it, on a queue that others publish to. It tells the flood of one
    publisher from everybody's.
    """

    source: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Processing raised ``error``; the retry policy decides what it means."""

    error: Exception


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Not processed at all, and not to blame: it returns as it came, its counters unchanged.

    ``tier`` says where it waits; without one the wait is the shortest.
    """

    tier: Tier | None = None


@dataclass(frozen=True, slots=True)
class KilledReaders:
    """Not processed, because it was delivered so many ``times`` without an answer to any.

    It seems to kill whoever reads it.
    """

    times: int


Outcome = Done | Failed | HandedBack | KilledReaders


@dataclass(frozen=True, slots=True)
class Progress:
    """What a message has been through: ``attempt`` counts from 1, ``waits`` spent no budget."""

    attempt: int = 1
    waits: int = 0
    first_failed_at: datetime | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> "Progress":
        """Read the counters, which count only on a delivery that came from a retry tier."""
        if not delivery.came_back:
            return cls()
        return cls(
            attempt=_count(delivery.headers, ATTEMPT, least=1),
            waits=_count(delivery.headers, WAITS, least=0),
            first_failed_at=_moment(delivery.headers.get(FIRST_FAILED_AT)),
        )

    def headers(self) -> dict[str, str | int]:
        """Return the headers that carry this progress through a retry tier."""
        headers: dict[str, str | int] = {ATTEMPT: self.attempt, WAITS: self.waits}
        if self.first_failed_at is not None:
            headers[FIRST_FAILED_AT] = self.first_failed_at.isoformat()
        return headers


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Ack it: a message of ``source``, if the handler knows, ended well."""

    source: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Publish a copy to ``tier``, then ack."""

    tier: Tier
    progress: Progress


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish a copy to the dead-letter queue, then ack."""

    reason: Reason
    detail: str
    attempts: int
    first_failed_at: datetime
    subject: str | None = field(default=None, repr=False)

    def headers(self, *, service: str, requeue_to: str, now: datetime) -> dict[str, str | int]:
        """Return what an operator reads on the dead letter; the counters are left behind."""
        return {
            "nexus-reason": self.reason.value,
            "nexus-error": self.detail,
            "nexus-attempts": self.attempts,
            FIRST_FAILED_AT: self.first_failed_at.isoformat(),
            "nexus-failed-at": now.isoformat(),
            "nexus-service": service,
            REQUEUE_TO: requeue_to,
        }


Decision = Acknowledge | Retry | DeadLetter


def decide(outcome: Outcome, progress: Progress, now: datetime) -> Decision:
    """Decide what follows after ``outcome`` of a delivery with ``progress``.

    An error that is neither permanent nor transient is a bug or an outage nobody foresaw. It is
    retried until its budget is spent, because a dead letter costs a person and a retry does not.
    """
    match outcome:
        case Done(source):
            return Acknowledge(source)
        case HandedBack(tier):
            return Retry(tier or TIERS[0], progress)
        case KilledReaders(times):
            detail = f"delivered {times} times without an answer, and not read again"
            return DeadLetter(Reason.CRASHED_CONSUMER, detail, times, now)
        case Failed(error):
            return _after(error, progress, progress.first_failed_at or now)


def _after(error: Exception, progress: Progress, first_failed_at: datetime) -> Retry | DeadLetter:
    match error:
        case PermanentError(reason=reason, subject=subject):
            detail = describe(error)
            return DeadLetter(reason, detail, progress.attempt, first_failed_at, subject)
        case ContractError():
            reason = Reason(error.reason)
            return DeadLetter(reason, describe(error), progress.attempt, first_failed_at)
        case TransientError(tier=tier):
            waited = Progress(progress.attempt, progress.waits + 1, first_failed_at)
            return Retry(tier or _tier(progress.waits), waited)
        case _ if progress.attempt >= BUDGET:
            detail = describe(error)
            return DeadLetter(Reason.ATTEMPTS_SPENT, detail, progress.attempt, first_failed_at)
        case _:
            tried = Progress(progress.attempt + 1, progress.waits, first_failed_at)
            return Retry(_tier(progress.attempt - 1), tried)


def describe(error: Exception) -> str:
    """Name an error for a person, without a value from the message.

    The texts of our own errors are made for this; those of others may quote what they choked on,
    so of them only the class is told.
    """
    name = type(error).__name__
    ours = isinstance(error, PermanentError | TransientError | ContractError)
    text = f"{name}: {error}" if ours else name
    return text.encode(errors="replace")[:MAX_DETAIL].decode(errors="ignore")


def _tier(earlier: int) -> Tier:
    return TIERS[min(earlier, len(TIERS) - 1)]


def _count(headers: Mapping[str, object], name: str, *, least: int) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) and value >= least else least


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
