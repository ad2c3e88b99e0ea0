"""Which reports recovery changes in a restored ledger. Pure.

The ledger was restored from a backup, the journal was not. A report that is in the journal and not
in the ledger was made after the backup, and Stripe may have counted it: made again from the same
events, it would be counted twice. So its row is inserted again, and events are claimed for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from nexus_contracts import CallRecord, UsageRecorded

RANKS: Final = {
    "pending": 0,
    "forwarded": 1,
    "rejected": 2,
    "reported": 3,
    "rejected_later": 4,
    "superseded": 5,
    "shadow": 6,
}
"""A report's state only rises. One of shadow mode is in no journal."""

Slot = tuple[UUID, str]
"""A claim and a meter: one of their reports is standing, the others were superseded."""


@dataclass(frozen=True, slots=True)
class CustomerAccount:
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
    account: CustomerAccount
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
    records: Sequence[CallRecord],
    ledger: Sequence[ReportRow],
    accounts: Mapping[str, CustomerAccount],
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


def _insert(changes: Changes, record: CallRecord, accounts: Mapping[str, CustomerAccount]) -> None:
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
