"""What recovery changes in a restored ledger: which reports, and which events of them. Pure.

The ledger was restored from a backup, the journal was not. A report that is in the journal and not
in the ledger was made after the backup, and Stripe may have counted it: made again from the same
events, it would be counted twice. So its row is inserted again, and events are claimed for it.

The journal has how many events a report summed up and the time of the earliest, but not their ids.
On a meter that counts runs, any events of that customer, window and dimension set are the same
money if their number is right.

Nor has it the plan by which routes became meters. A route was on one of the meters that some plan
has for it: on that of the account's plan as it is known now, if the claim has a report of it, else
on another that the claim has a report of.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from nexus_contracts import CallRecord, UsageRecorded
from nexus_plans import Charge
from usage_ingest.charging import Charges, charged_value, is_route
from usage_ingest.windows import bounds

RANKS: Final = {
    "pending": 0,
    "forwarded": 1,
    "rejected": 2,
    "reported": 3,
    "rejected_later": 4,
    "superseded": 5,
}
"""A report's state only rises."""

Slot = tuple[UUID, str]
"""A claim and a meter: one of their reports is standing, the others were superseded."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a customer at Stripe, and the customer's generation."""

    account_id: UUID
    generation: int


@dataclass(frozen=True, slots=True)
class ReportStatus:
    """The part of a report's row that changes."""

    state: str
    forwarded_at: datetime | None = None
    answered_at: datetime | None = None
    reason: str | None = None
    ever_unknown: bool = False

    @classmethod
    def of(cls, record: CallRecord) -> "ReportStatus":
        """Return the status that a record of the journal gives a report.

        A report that may have been counted, or that Stripe refused only for now, is ``forwarded``:
        if it is replayed, the reporter goes on from what its journal says.
        """
        began, ended = record.started_at, record.answered_at
        if record.rejected_later is not None:
            return cls("rejected_later", began, ended, record.rejected_later, record.ever_unknown)
        if record.state == "accepted":
            return cls("reported", began, ended, None, record.ever_unknown)
        if record.state == "refused" and record.reason is not None:
            return cls("rejected", began, ended, record.reason, record.ever_unknown)
        return cls("forwarded", began, ever_unknown=record.ever_unknown)


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report as it is in the ledger, or will be."""

    report: UsageRecorded
    claim_id: UUID
    account: Account
    status: ReportStatus

    @property
    def slot(self) -> Slot:
        """The claim and the meter that it reports."""
        return (self.claim_id, self.report.meter)

    @property
    def dimensions_json(self) -> str:
        """The dimensions as JSON; equal dimensions are the same text."""
        return json.dumps(self.report.dimensions or {}, sort_keys=True)

    def is_replaced_by(self, other: "ReportRow") -> bool:
        """Whether it was refused for a deleted customer, and ``other`` is to a later one."""
        status = self.status
        gone = status.state == "rejected" and status.reason == "no_such_customer"
        return (
            gone and not status.ever_unknown and self.account.generation < other.account.generation
        )

    def superseded(self) -> "ReportRow":
        """Return it with the state of a report that was replaced."""
        return replace(self, status=replace(self.status, state="superseded"))


@dataclass(slots=True)
class Changes:
    """The changes to the ledger's reports.

    ``updates`` are rows with another status, ``inserts`` rows that the ledger lacks, both by
    report. ``standing`` is the report that stands then for each claim and meter.
    ``unknown_customers`` are records of customers that the ledger does not have; ``conflicts`` are
    records that contradict the ledger.
    """

    standing: dict[Slot, ReportRow] = field(default_factory=dict)
    updates: dict[UUID, ReportRow] = field(default_factory=dict)
    inserts: dict[UUID, ReportRow] = field(default_factory=dict)
    unknown_customers: list[CallRecord] = field(default_factory=list)
    conflicts: list[CallRecord] = field(default_factory=list)


def plan_reports(
    records: Sequence[CallRecord], ledger: Sequence[ReportRow], accounts: Mapping[str, Account]
) -> Changes:
    """Plan the changes to the ledger's reports.

    Args:
        records: The journal's records, one for each report.
        ledger: The rows of these reports, and all others of the same claims.
        accounts: The accounts of the reports' customers, as far as the ledger has them.
    """
    known = {row.report.report_id: row for row in ledger}
    changes = Changes({row.slot: row for row in ledger if row.status.state != "superseded"})
    for record in records:
        if record.report.report_id in known:
            _update(changes, known[record.report.report_id], record)
    for record in records:
        if record.report.report_id not in known:
            _insert(changes, record, accounts)
    return changes


def _update(changes: Changes, row: ReportRow, record: CallRecord) -> None:
    if row.report != record.report:
        changes.conflicts.append(record)
        return
    status = ReportStatus.of(record)
    if RANKS[status.state] > RANKS[row.status.state]:
        updated = replace(row, status=status)
        changes.updates[row.report.report_id] = updated
        changes.standing[row.slot] = updated


def _insert(changes: Changes, record: CallRecord, accounts: Mapping[str, Account]) -> None:
    account = accounts.get(record.report.stripe_customer_id)
    if account is None:
        changes.unknown_customers.append(record)
        return
    row = ReportRow(record.report, record.claim_id, account, ReportStatus.of(record))
    standing = changes.standing.get(row.slot)
    if standing is not None and row.is_replaced_by(standing):
        changes.inserts[record.report.report_id] = row.superseded()
        return
    if standing is not None and not standing.is_replaced_by(row):
        changes.conflicts.append(record)
        return
    if standing is not None:
        replaced = standing.report.report_id
        rows = changes.inserts if replaced in changes.inserts else changes.updates
        rows[replaced] = standing.superseded()
    changes.inserts[record.report.report_id] = row
    changes.standing[row.slot] = row


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
    taken: list[tuple[UUID, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Claim:
    """A claim by its standing reports, one for each meter, and the readings of its events so far.

    ``counting`` are the keys of which each run has one, whatever else it has; without routes there
    is only one, and it need not be known. ``plan`` is its account's plan at the time of its first
    event, as it is known now. ``events`` and ``sums`` are the number and the sum of its events'
    readings, by key.
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
        if key not in known:
            return None
        possible = (plan[key] for plan in (known, *self.charges.values()) if key in plan)
        return next((each for each in possible if each.meter in self.rows), known[key])

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
    def differences(self) -> dict[tuple[str, str], int]:
        """By customer and meter, how much more was reported than its events read.

        While events are missing, that is not known, and nothing is returned.
        """
        if self.missing:
            return {}
        values: Counter[str] = Counter()
        for key, value in self.sums.items():
            if (charge := self.charge(key)) is not None:
                values[charge.meter] += charged_value(value, charge)
        reports = {meter: row.report for meter, row in self.rows.items()}
        return {
            (report.stripe_customer_id, meter): report.value - values[meter]
            for meter, report in reports.items()
        }

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
            beside.taken.append((candidate.event_id, key, meter))

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
    def of(cls, claim: Claim, window: timedelta) -> "Group":
        """Return where a claim's events are if windows have that length."""
        return cls.of_row(claim.first, window)

    @classmethod
    def of_row(cls, row: ReportRow, window: timedelta) -> "Group":
        """Return where what a report sums up is, likewise."""
        moment = row.report.occurred_at
        return cls(row.account.account_id, *bounds(moment, window), row.dimensions_json)


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
