"""Which reports recovery restores from the journal's records, in any order."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Literal
from uuid import UUID

import pytest

from nexus_contracts import CallRecord, UsageRecorded
from usage_ingest.recovery.reports import (
    RANKS,
    Changes,
    CustomerAccount,
    ReportRow,
    ReportStatus,
    plan_reports,
)

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USER = UUID(int=9)
CLAIM = UUID(int=8)
METER = "tool_call_executed"
ACCOUNTS = {f"cus_{n}": CustomerAccount(USER, n) for n in (1, 2, 3)}

State = Literal["calling", "unknown", "refused", "accepted"]


def record(
    number: int, state: State, reason: str | None = None, *, ever_unknown: bool = False
) -> CallRecord:
    """Return the journal's record of the claim's report to the user's customer ``number``."""
    report = UsageRecorded(
        report_id=UUID(int=number),
        identifier=f"nexus:{number}",
        meter=METER,
        value=3,
        stripe_customer_id=f"cus_{number}",
        occurred_at=AT,
        event_count=3,
        claim_id=CLAIM,
    )
    answered = None if state == "calling" else AT
    return CallRecord(
        report=report,
        state=state,
        started_at=AT,
        answered_at=answered,
        reason=reason,
        ever_unknown=ever_unknown,
    )


def row(of: CallRecord, state: str) -> ReportRow:
    """Return the ledger's row of a report."""
    account = ACCOUNTS[of.report.stripe_customer_id]
    return ReportRow(of.report, CLAIM, account, ReportStatus(state, reason=of.reason))


def states(changes: Changes) -> dict[int, str]:
    """Return the new state of each report that changes, by its number."""
    return {id_.int: row.status.state for id_, row in (changes.updates | changes.inserts).items()}


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (record(1, "accepted"), "reported"),
        (record(1, "refused", "no_such_customer"), "rejected"),
        (record(1, "refused"), "forwarded"),
        (record(1, "unknown"), "forwarded"),
        (record(1, "calling"), "forwarded"),
    ],
    ids=["counted", "refused for good", "refused for the moment", "unknown", "being called"],
)
def test_lost_report_is_restored_with_the_state_in_the_journal(
    known: CallRecord, state: str
) -> None:
    """Counted and refused are final; any other report is forwarded, and can be replayed."""
    assert states(plan_reports([known], [], ACCOUNTS)) == {1: state}


@pytest.mark.parametrize("known", sorted(RANKS))
def test_report_in_the_ledger_is_only_raised(known: str) -> None:
    """A report that is pending in the backup gets the journal's state; a higher state stays."""
    for one in (record(1, "unknown"), record(1, "refused", "x"), record(1, "accepted")):
        new = ReportStatus.of(one).state
        changes = plan_reports([one], [row(one, known)], {})

        assert states(changes) == ({1: new} if RANKS[new] > RANKS[known] else {})
        assert not changes.inserts


GONE = "no_such_customer"
LINEAGE = (record(1, "refused", GONE), record(2, "refused", GONE), record(3, "accepted"))


@pytest.mark.parametrize("order", list(permutations(LINEAGE)))
def test_report_to_the_latest_customer_stands_in_any_order(
    order: tuple[CallRecord, ...],
) -> None:
    """Two customers were deleted and there is a third: its report stands, and none is made anew."""
    at_once = plan_reports(order, [], ACCOUNTS)
    assert states(at_once) == {1: "superseded", 2: "superseded", 3: "reported"}

    ledger: dict[UUID, ReportRow] = {}
    for one in order:
        step = plan_reports([one], list(ledger.values()), ACCOUNTS)
        ledger |= step.inserts | step.updates
    found = {id_.int: one.status.state for id_, one in ledger.items()}
    assert found == {1: "superseded", 2: "superseded", 3: "reported"}


def test_forwarded_report_of_the_backup_is_superseded() -> None:
    """It was refused and replaced after the backup."""
    old, new = record(1, "refused", GONE), record(2, "accepted")

    changes = plan_reports([new, old], [row(old, "forwarded")], ACCOUNTS)

    assert states(changes) == {1: "superseded", 2: "reported"}
    assert not changes.conflicts


@pytest.mark.parametrize(
    "old",
    [
        record(1, "accepted"),
        record(1, "refused", "refused_by_stripe"),
        record(1, "refused", GONE, ever_unknown=True),
    ],
    ids=["counted", "refused for something else", "may have been counted"],
)
def test_second_standing_report_of_a_claim_is_a_conflict(old: CallRecord) -> None:
    """Both may have been counted: a person decides."""
    new = record(2, "accepted")

    for order in ([old, new], [new, old]):
        changes = plan_reports(order, [], ACCOUNTS)
        assert len(changes.inserts) == 1
        assert changes.conflicts == [order[1]]


def test_other_report_with_a_known_id_is_a_conflict() -> None:
    """A list of another installation changes nothing."""
    one = record(1, "accepted")
    known = row(one, "forwarded")
    other = one.model_copy(update={"report": one.report.model_copy(update={"value": 4})})

    changes = plan_reports([other], [known], ACCOUNTS)

    assert (states(changes), changes.conflicts) == ({}, [other])


def test_report_of_an_unknown_customer_is_not_restored() -> None:
    """The journal does not have its user; the ledger has it once the customer is announced."""
    one = record(1, "accepted")

    changes = plan_reports([one], [], {})

    assert (states(changes), changes.unknown_customers) == ({}, [one])


@pytest.mark.parametrize("state", ["calling", "unknown", "refused", "accepted"])
def test_ever_unknown_of_the_journal_is_kept_in_every_state(state: State) -> None:
    """Because of it, a report that may have been counted is never replaced."""
    unknown = record(1, state, GONE if state == "refused" else None, ever_unknown=True)

    assert ReportStatus.of(unknown).ever_unknown
