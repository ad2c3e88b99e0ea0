"""Which events a claim takes that was put back without them: pure.

The journal knows how many runs each report of a claim has summed up, and when the earliest was, but
not which. Of one customer, window and dimension set, any runs of the right number are the right
money on a meter that counts runs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from usage_ingest.adoption import Row
from usage_ingest.windows import bounds


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event that no claim has, and what it reads on each meter."""

    event_id: UUID
    occurred_at: datetime
    readings: Mapping[str, int]


@dataclass(slots=True)
class Claim:
    """A claim by its standing reports, one for each meter, and what its events read so far."""

    rows: Mapping[str, Row]
    events: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> Row:
        """Any of its reports: customer, window and dimensions are the same."""
        return next(iter(self.rows.values()))

    @property
    def occurred_at(self) -> datetime:
        """The time of its earliest event."""
        return self.first.report.occurred_at

    @property
    def lacking(self) -> dict[str, int]:
        """How many events it still lacks, by those of its meters that lack any."""
        lacking = {m: row.report.event_count - self.events[m] for m, row in self.rows.items()}
        return {meter: count for meter, count in lacking.items() if count > 0}

    @property
    def missing(self) -> int:
        """How many events it lacks: one that is read by two meters is one."""
        return max(self.lacking.values(), default=0)

    @property
    def differences(self) -> dict[tuple[str, str], int]:
        """By customer and meter, how much more was reported than its events read.

        Of a claim that lacks events that is not known yet.
        """
        if self.missing:
            return {}
        reports = {meter: row.report for meter, row in self.rows.items()}
        return {
            (report.stripe_customer_id, meter): report.value - self.values[meter]
            for meter, report in reports.items()
        }

    def take(self, candidate: Candidate) -> None:
        """Count an event to it."""
        self.events.update(candidate.readings.keys())
        self.values.update(candidate.readings)

    def fits(self, candidate: Candidate) -> bool:
        """Whether it can have summed up this event and still find all others it lacks.

        It has reports on every meter that its events read, so each that this one reads must lack
        an event. Places that only events of a further meter can fill stay free for them: so many
        of the runs had tokens, and those may be yet to come.
        """
        lacking = self.lacking
        others = lacking.keys() - candidate.readings.keys()
        return candidate.readings.keys() <= lacking.keys() and all(
            lacking[each] < self.missing for each in others
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Where the events of some claims are: a user, a window, and dimensions as JSON."""

    user_id: UUID
    begins: datetime
    ends: datetime
    dimensions: str

    @classmethod
    def of(cls, claim: Claim, window: timedelta) -> "Group":
        """Return where a claim's events are, given the length of windows."""
        dimensions = json.dumps(claim.first.report.dimensions or {}, sort_keys=True)
        return cls(claim.first.account.user_id, *bounds(claim.occurred_at, window), dimensions)


def match(claims: Iterable[Claim], candidates: Sequence[Candidate]) -> dict[UUID, UUID]:
    """Let claims of one customer and window take what they lack; return each event's claim.

    A claim's earliest event is known by its time: the latest claim chooses first, and earlier
    events than its own are taken only for want of others.
    """
    taken: dict[UUID, UUID] = {}
    for claim in sorted(claims, key=lambda claim: claim.occurred_at, reverse=True):
        for candidate in _by_likelihood(claim.occurred_at, candidates):
            if not claim.missing:
                break
            if candidate.event_id not in taken and claim.fits(candidate):
                taken[candidate.event_id] = claim.first.claim_id
                claim.take(candidate)
    return taken


def _by_likelihood(earliest: datetime, candidates: Sequence[Candidate]) -> list[Candidate]:
    def key(each: Candidate) -> tuple[bool, datetime, UUID]:
        return (each.occurred_at < earliest, each.occurred_at, each.event_id)

    return sorted(candidates, key=key)
