"""Which events recovery claims for the reports of a restored ledger. Pure.

The journal has how many events a report summed up and the time of the earliest, but not their ids.
On a meter that counts runs, any events of that customer, window and dimension set are the same
money if their number is right.

Nor has it the plan by which routes became meters. A route was on one of the meters that some plan
has for it: on that of the account's plan as it is known now, if the claim has a report of it, else
on another that the claim has a report of.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from nexus_plans import Charge
from usage_ingest.charging import Charges, charged_value, is_route
from usage_ingest.recovery.reports import ReportRow
from usage_ingest.windows import bounds


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event that is in no claim, and its readings by their keys.

    ``overruled``: its account is another one by what is known now, and was the claim's by what was
    known before.
    """

    event_id: UUID
    occurred_at: datetime
    readings: Mapping[str, int]
    overruled: bool = False


@dataclass(slots=True)
class Beside:
    """Readings that late reports of a group summed up, and that its events may have again.

    ``room`` is how many of each meter these reports still lack. ``taken`` are the readings that
    were found for them: event, key and meter.
    """

    room: Counter[str] = field(default_factory=Counter)
    taken: list[tuple["Candidate", str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, claims: Iterable["Claim"]) -> "Beside":
        """Return the room that the late claims of a group have."""
        room: Counter[str] = Counter()
        for claim in claims:
            room.update(claim.lacking)
        return cls(room)


@dataclass(slots=True)
class Differences:
    """By customer and meter, how much more claims reported than their events read.

    Claims may have exchanged events, which leaves the sum over all of them as it was, but for
    rounding: ``rounded`` is how many of the claims that differ have a markup.
    """

    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    rounded: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: "Differences") -> None:
        """Add those of other claims."""
        self.values.update(other.values)
        self.rounded.update(other.rounded)

    def named(self) -> list[tuple[tuple[str, str], int]]:
        """Return those that no exchange of events explains, the greatest first."""
        return [
            (of, value) for of, value in self.values.most_common() if abs(value) > self.rounded[of]
        ]


@dataclass(slots=True)
class Claim:
    """A claim by its standing reports, one for each meter, and the readings of its events so far.

    ``counting`` are the keys of which each run has one, whatever else it has; without routes there
    is only one, and it need not be known. A claim of late readings has one reading of each event.
    ``plan`` is its account's plan at the time of its first event, as it is known now. ``events``
    and ``sums`` are the number and the sum of its events' readings, by key.
    """

    rows: Mapping[str, ReportRow]
    charges: Charges = field(default_factory=dict)
    counting: Collection[str] = frozenset()
    plan: str | None = None
    events: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> ReportRow:
        """Any of its reports: customer, window and dimensions are the same."""
        return next(iter(self.rows.values()))

    @property
    def occurred_at(self) -> datetime:
        """The time of its earliest event."""
        return self.first.report.occurred_at

    def charge(self, key: str) -> Charge | None:
        """Return what its readings with a key are charged as; ``None``: on no meter."""
        if not is_route(key):
            return Charge(key)
        known = self.charges.get(self.plan, self.charges.get(None, {}))
        plans = (known, *self.charges.values())
        reported = [plan[key] for plan in plans if key in plan and plan[key].meter in self.rows]
        if key in known:
            return next(iter(reported), known[key])
        # A report that the plan as it is known now can't have made tells of another plan.
        explained = {*self.counting, *(charge.meter for charge in known.values())}
        return next((each for each in reported if each.meter not in explained), None)

    @property
    def lacking(self) -> dict[str, int]:
        """The number of events that it lacks, for each meter that lacks any."""
        counted: Counter[str] = Counter()
        for key, number in self.events.items():
            if (charge := self.charge(key)) is not None:
                counted[charge.meter] += number
        lacking = {m: row.report.event_count - counted[m] for m, row in self.rows.items()}
        return {meter: count for meter, count in lacking.items() if count > 0}

    @property
    def missing(self) -> int:
        """The number of events that it lacks: a run that is on two meters is one."""
        return self._missing(self.lacking)

    def _missing(self, lacking: Mapping[str, int]) -> int:
        counted = sum(lacking.get(meter, 0) for meter in self._on(self.counting))
        return max(counted, *lacking.values(), 0)

    def _on(self, keys: Iterable[str]) -> set[str]:
        """Return the meters that readings with these keys are on."""
        return {charge.meter for key in keys if (charge := self.charge(key)) is not None}

    @property
    def differences(self) -> "Differences":
        """How much more was reported than its events read.

        While events are missing, that is not known, and nothing is returned.
        """
        found = Differences()
        if self.missing:
            return found
        values: Counter[str] = Counter()
        rounded = set()
        for key, value in self.sums.items():
            if (charge := self.charge(key)) is not None:
                values[charge.meter] += charged_value(value, charge)
                rounded |= {charge.meter} if charge.markup_percent else set()
        for meter, row in self.rows.items():
            if difference := row.report.value - values[meter]:
                of = (row.report.stripe_customer_id, meter)
                found.values[of] += difference
                found.rounded[of] += meter in rounded
        return found

    def beside(self, candidate: Candidate, beside: Beside) -> dict[str, str]:
        """Return the readings of an event that are a late report's, as far as there is room.

        That is the meter by key, of meters that the claim lacks nothing of.
        """
        lacking = self.lacking
        charged = {key: self.charge(key) for key in candidate.readings if is_route(key)}
        return {
            key: charge.meter
            for key, charge in charged.items()
            if charge is not None and charge.meter not in lacking and beside.room[charge.meter] > 0
        }

    def add(self, candidate: Candidate, beside: Beside) -> None:
        """Add an event to its sums, but for what is a late report's."""
        late = self.beside(candidate, beside)
        own = {key: value for key, value in candidate.readings.items() if key not in late}
        self.events.update(own.keys())
        self.sums.update(own)
        for key, meter in late.items():
            beside.room[meter] -= 1
            beside.taken.append((candidate, key, meter))

    def accepts(self, candidate: Candidate, beside: Beside) -> bool:
        """Whether it may have summed up this event, and can still get all others that it lacks.

        It has a report on every meter that its events are on, so each meter of this event must lack
        one. Where only an event that is on a further meter can fill a place, as a run with tokens,
        the place stays free for it: that event may not be back yet. Another meter that counts runs
        has places of its own.
        """
        late = self.beside(candidate, beside)
        own = [key for key in candidate.readings if key not in late]
        lacking, meters = self.lacking, self._on(own)
        missing, counting = self._missing(lacking), self._on(self.counting)
        further = lacking.keys() - meters - (counting if meters & counting else set())
        fits = bool(meters) and meters <= lacking.keys()
        return fits and all(lacking[each] < missing for each in further)


@dataclass(frozen=True, slots=True)
class Group:
    """Where to find the events of some claims: an account, a window, and dimensions as JSON."""

    account_id: UUID
    begins: datetime
    ends: datetime
    dimensions: str

    @classmethod
    def of(cls, claim: Claim, window: timedelta, live_from: datetime | None) -> "Group":
        """Return where a claim's events are if windows have that length.

        Those of before ``live_from`` are in no report that was sent from then on.
        """
        return cls.of_row(claim.first, window, live_from)

    @classmethod
    def of_row(cls, row: ReportRow, window: timedelta, live_from: datetime | None) -> "Group":
        """Return where what a report sums up is, likewise."""
        begins, ends = bounds(row.report.occurred_at, window)
        if live_from is not None and begins < live_from <= row.report.occurred_at:
            begins = live_from
        return cls(row.account.account_id, begins, ends, row.dimensions_json)


def assign_events(
    claims: Iterable[Claim], candidates: Sequence[Candidate], beside: Beside | None = None
) -> dict[UUID, UUID]:
    """Give claims of one group the events that they lack; return the claim of each event.

    Readings that late reports of the group lack are taken off the events: see ``Beside``. Events
    without such readings are taken first.

    The time of a claim's earliest event is known: the latest claim chooses first, and takes events
    before its own earliest one only if there are no others, and those that are another account's by
    now last of all.
    """
    taken: dict[UUID, UUID] = {}
    late = beside or Beside()
    for claim in sorted(claims, key=lambda claim: claim.occurred_at, reverse=True):
        likely = _by_likelihood(claim.occurred_at, candidates)
        for candidate in sorted(likely, key=lambda each: len(claim.beside(each, late))):
            if not claim.missing:
                break
            if candidate.event_id not in taken and claim.accepts(candidate, late):
                taken[candidate.event_id] = claim.first.claim_id
                claim.add(candidate, late)
    return taken


def _by_likelihood(earliest: datetime, candidates: Sequence[Candidate]) -> list[Candidate]:
    def key(each: Candidate) -> tuple[bool, bool, datetime, UUID]:
        early = each.occurred_at < earliest
        return (each.overruled, early, each.occurred_at, each.event_id)

    return sorted(candidates, key=key)
