"""What Stripe says later of an attempt, and whether the report's acceptance rests on it.

Pure: values in, values out.

Stripe validates a meter event again after it has accepted it, and then reports what it does not
count, by the idempotency keys of some of the requests
(https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stripe_reporter.fence import BY_HAND, Entry, State
from stripe_reporter.reports import attempt_of
from stripe_reporter.stripe.responses import DUPLICATE


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that Stripe does not count: its idempotency key, and Stripe's code for why."""

    key: str
    code: str


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What an event at Stripe says of a meter's errors.

    ``samples`` are some of the requests, not all: ``errors`` is how many there were. They were
    made from ``start`` to ``end``. ``meter_id`` is absent if there is no such meter.
    """

    event_id: str
    meter_id: str | None
    start: datetime
    end: datetime
    errors: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An attempt that Stripe does not count: call ``key_n`` of the report ``identifier``."""

    identifier: str
    key_n: int
    code: str


class Verdict(StrEnum):
    """What a rejected attempt means for its report."""

    REJECTED = "rejected"
    """Its acceptance rests on this attempt: Stripe does not count it."""
    OTHER_ATTEMPT = "other_attempt"
    """Another attempt was accepted."""
    BY_HAND = "by_hand"
    """A person has settled it, after a look at Stripe."""


def rejections(samples: Iterable[Sample]) -> Iterator[Rejection]:
    """Yield the attempts that ``samples`` name, each once; keys of other senders are left out."""
    seen = set()
    for sample in samples:
        attempt = attempt_of(sample.key)
        if attempt is not None and attempt not in seen:
            seen.add(attempt)
            yield Rejection(*attempt, sample.code)


def judge(entry: Entry, key_n: int) -> Verdict | None:
    """Decide what the rejection of call ``key_n`` means for the report of ``entry``.

    None: it is not known yet, since Stripe has accepted none of its calls so far.

    An identifier that Stripe has seen it answers as a duplicate, so a call whose answer was a
    success made the meter event, and no other did. A duplicate says that an earlier call made it,
    of unknown outcome until then, without saying which.
    """
    if entry.state is not State.ACCEPTED:
        return None
    if entry.answer == BY_HAND:
        return Verdict.BY_HAND
    accepted = entry.key_n if entry.accepted_key_n is None else entry.accepted_key_n
    earlier_counts = entry.answer == DUPLICATE.name or entry.accepted_key_n is None
    rests_on = key_n <= accepted if earlier_counts else key_n == accepted
    return Verdict.REJECTED if rests_on else Verdict.OTHER_ATTEMPT
