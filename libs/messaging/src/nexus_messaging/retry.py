"""The retry policy: decides from an outcome what to do with a delivery. Pure, without I/O."""

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
"""Deliveries of a message whose failure is neither permanent nor transient."""

MAX_DETAIL: Final = 1024
"""Bytes of ``nexus-error`` at most: all headers must fit one AMQP frame of 128 KiB."""

HANDLED_ALONE_FROM: Final = 3
"""Returns without an ack from which a message is processed alone: it may crash its consumer."""

CRASHED_FROM: Final = 10
"""Returns without an ack from which a message is dead-lettered unread."""


@dataclass(frozen=True, slots=True)
class Done:
    """The message is processed.

    ``source``: its publisher, on a queue for outside publishers. The flood guard uses it to tell a
    flood of one source from a flood of most.
    """

    source: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Processing raised ``error``; ``decide`` classifies it."""

    error: Exception


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Not processed, for a cause outside the message: it returns with unchanged counters.

    ``tier`` is the retry tier in which it waits, by default the shortest.
    """

    tier: Tier | None = None


@dataclass(frozen=True, slots=True)
class CrashedConsumers:
    """Not processed: it was delivered so many ``times`` without an ack.

    It probably crashes its consumer.
    """

    times: int


Outcome = Done | Failed | HandedBack | CrashedConsumers


@dataclass(frozen=True, slots=True)
class Progress:
    """Earlier failures of a message: ``attempt`` counts from 1; ``waits`` spend no budget."""

    attempt: int = 1
    waits: int = 0
    first_failed_at: datetime | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> "Progress":
        """Read the counters, which are valid only on a delivery from a retry tier."""
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
    """Ack it: the message was processed. ``source`` as in ``Done``."""

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
        """Return the headers of the dead letter; the retry counters are left out."""
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
    """Decide what to do after ``outcome`` of a delivery with ``progress``.

    An error that is neither permanent nor transient is a bug or an unexpected outage. It is retried
    until its budget is spent, because a dead letter costs an operator's time and a retry does not.
    """
    match outcome:
        case Done(source):
            return Acknowledge(source)
        case HandedBack(tier):
            return Retry(tier or TIERS[0], progress)
        case CrashedConsumers(times):
            detail = f"delivered {times} times without an answer, and not read again"
            return DeadLetter(Reason.CRASHED_CONSUMER, detail, times, now)
        case Failed(error):
            return _decide_failed(error, progress, progress.first_failed_at or now)


def _decide_failed(
    error: Exception, progress: Progress, first_failed_at: datetime
) -> Retry | DeadLetter:
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
    """Describe an error to an operator, without a value from the message.

    Errors of this project have texts without values. Other errors may quote the failing value, so
    only their class is named.
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
