"""What a restored ledger takes back from the reporter's journal, report by report: pure.

The ledger was restored from a backup, the journal was not. A report that the journal knows and the
ledger does not was made after the backup, and Stripe may have counted it; made anew from the same
events, it would be counted twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from nexus_contracts import CallRecord, UsageRecorded

RANKS: Final = {"pending": 0, "forwarded": 1, "rejected": 2, "reported": 3, "superseded": 4}
"""A report's state only rises."""

Slot = tuple[UUID, str]
"""A claim and a meter: one report of them stands, others were superseded."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a customer at Stripe is, and which of the user's customers."""

    user_id: UUID
    generation: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a report has come, and since when."""

    state: str
    forwarded_at: datetime | None = None
    answered_at: datetime | None = None
    reason: str | None = None
    ever_unknown: bool = False

    @classmethod
    def of(cls, record: CallRecord) -> "Mark":
        """Return what the journal's word makes of a report.

        What may have been counted, and what Stripe refused for the moment only, is ``forwarded``:
        replaying it has the reporter go on where its journal stands.
        """
        began, ended = record.started_at, record.answered_at
        if record.state == "accepted":
            return cls("reported", began, ended, None, record.ever_unknown)
        if record.state == "refused" and record.reason is not None:
            return cls("rejected", began, ended, record.reason, record.ever_unknown)
        return cls("forwarded", began, ever_unknown=record.ever_unknown)


@dataclass(frozen=True, slots=True)
class Row:
    """A report as the ledger has it, or is to have it."""

    report: UsageRecorded
    claim_id: UUID
    account: Account
    mark: Mark

    @property
    def slot(self) -> Slot:
        """The claim and the meter it reports."""
        return (self.claim_id, self.report.meter)

    def gives_way_to(self, other: "Row") -> bool:
        """Whether it was refused for a deleted customer and ``other`` went to a later one."""
        mark = self.mark
        gone = mark.state == "rejected" and mark.reason == "no_such_customer"
        return gone and not mark.ever_unknown and self.account.generation < other.account.generation

    def superseded(self) -> "Row":
        """Return it as one that another took over from."""
        return replace(self, mark=replace(self.mark, state="superseded"))


@dataclass(slots=True)
class Plan:
    """What is to become of the ledger's reports.

    ``marks`` are those of reports the ledger has, ``rows`` are those it lacks. ``standing`` is, by
    claim and meter, what stands then. ``strangers`` are of customers the ledger does not know;
    ``contradictory`` are reports that the ledger has otherwise.
    """

    standing: dict[Slot, Row] = field(default_factory=dict)
    marks: dict[UUID, Mark] = field(default_factory=dict)
    rows: dict[UUID, Row] = field(default_factory=dict)
    strangers: list[CallRecord] = field(default_factory=list)
    contradictory: list[CallRecord] = field(default_factory=list)

    def supersede(self, row: Row) -> None:
        """Let another report take over from one that stands."""
        gone = row.superseded()
        if row.report.report_id in self.rows:
            self.rows[row.report.report_id] = gone
        else:
            self.marks[row.report.report_id] = gone.mark


def plan(
    records: Sequence[CallRecord], ledger: Sequence[Row], accounts: Mapping[str, Account]
) -> Plan:
    """Plan what the ledger takes back.

    Args:
        records: What the journal says, each report once, with the claim it is of.
        ledger: The rows of these reports, and all others of the same claims.
        accounts: The customers of the reports that the ledger knows.
    """
    known = {row.report.report_id: row for row in ledger}
    made = Plan({row.slot: row for row in ledger if row.mark.state != "superseded"})
    for record in records:
        if record.report.report_id in known:
            _raise(made, known[record.report.report_id], record)
    for record in records:
        if record.report.report_id not in known:
            _put_back(made, record, accounts)
    return made


def _raise(made: Plan, row: Row, record: CallRecord) -> None:
    if row.report != record.report:
        made.contradictory.append(record)
        return
    mark = Mark.of(record)
    if RANKS[mark.state] > RANKS[row.mark.state]:
        made.marks[row.report.report_id] = mark
        made.standing[row.slot] = replace(row, mark=mark)


def _put_back(made: Plan, record: CallRecord, accounts: Mapping[str, Account]) -> None:
    account = accounts.get(record.report.stripe_customer_id)
    if account is None:
        made.strangers.append(record)
        return
    row = Row(record.report, record.claim_id, account, Mark.of(record))
    rival = made.standing.get(row.slot)
    if rival is not None and row.gives_way_to(rival):
        made.rows[record.report.report_id] = row.superseded()
        return
    if rival is not None and not rival.gives_way_to(row):
        made.contradictory.append(record)
        return
    if rival is not None:
        made.supersede(rival)
    made.rows[record.report.report_id] = row
    made.standing[row.slot] = row
