"""What a restored ledger makes of the journal's word, in whatever order it is told."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Literal
from uuid import UUID

import pytest

from nexus_contracts import CallRecord, UsageRecorded
from usage_ingest.adoption import RANKS, Account, Mark, Plan, Row, plan

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USER = UUID(int=9)
CLAIM = UUID(int=8)
METER = "tool_call_executed"
ACCOUNTS = {f"cus_{n}": Account(USER, n) for n in (1, 2, 3)}

State = Literal["calling", "unknown", "refused", "accepted"]


def record(
    number: int, state: State, reason: str | None = None, *, ever_unknown: bool = False
) -> CallRecord:
    """Return the journal's word on the report of the claim to the user's customer ``number``."""
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


def row(of: CallRecord, state: str) -> Row:
    """Return the ledger's row of a report."""
    account = ACCOUNTS[of.report.stripe_customer_id]
    return Row(of.report, CLAIM, account, Mark(state, reason=of.reason))


def states(made: Plan) -> dict[int, str]:
    """Return what becomes of each report, by its number."""
    marks = made.marks | {id_: row.mark for id_, row in made.rows.items()}
    return {id_.int: mark.state for id_, mark in marks.items()}


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (record(1, "accepted"), "reported"),
        (record(1, "refused", "no_such_customer"), "rejected"),
        (record(1, "refused"), "forwarded"),
        (record(1, "unknown"), "forwarded"),
        (record(1, "calling"), "forwarded"),
    ],
    ids=["counted", "refused for good", "refused for the moment", "unknown", "being called"],
)
def test_a_lost_report_is_put_back_as_far_as_the_journal_knows(
    told: CallRecord, state: str
) -> None:
    """Counted or refused is final; anything else is forwarded, and a replay goes on with it."""
    assert states(plan([told], [], ACCOUNTS)) == {1: state}


@pytest.mark.parametrize("known", sorted(RANKS))
def test_a_report_that_is_there_is_only_ever_raised(known: str) -> None:
    """A backup's pending becomes what the journal says; what the ledger knows better stays."""
    for told in (record(1, "unknown"), record(1, "refused", "x"), record(1, "accepted")):
        new = Mark.of(told).state
        made = plan([told], [row(told, known)], {})

        assert states(made) == ({1: new} if RANKS[new] > RANKS[known] else {})
        assert not made.rows


GONE = "no_such_customer"
LINEAGE = (record(1, "refused", GONE), record(2, "refused", GONE), record(3, "accepted"))


@pytest.mark.parametrize("order", list(permutations(LINEAGE)))
def test_reports_to_later_customers_take_over_in_whatever_order_they_are_told(
    order: tuple[CallRecord, ...],
) -> None:
    """Two deleted customers and a third: one stands, and nothing makes a fourth report."""
    at_once = plan(order, [], ACCOUNTS)
    assert states(at_once) == {1: "superseded", 2: "superseded", 3: "reported"}

    ledger: dict[UUID, Row] = {}
    for told in order:
        step = plan([told], list(ledger.values()), ACCOUNTS)
        ledger |= step.rows
        for id_, mark in step.marks.items():
            old = ledger[id_]
            ledger[id_] = Row(old.report, old.claim_id, old.account, mark)
    found = {id_.int: one.mark.state for id_, one in ledger.items()}
    assert found == {1: "superseded", 2: "superseded", 3: "reported"}


def test_a_backups_report_gives_way_once_its_own_refusal_is_told() -> None:
    """It was still forwarded in the backup; refused and superseded since."""
    old, new = record(1, "refused", GONE), record(2, "accepted")

    made = plan([new, old], [row(old, "forwarded")], ACCOUNTS)

    assert states(made) == {1: "superseded", 2: "reported"}
    assert not made.contradictory


@pytest.mark.parametrize(
    "old",
    [
        record(1, "accepted"),
        record(1, "refused", "refused_by_stripe"),
        record(1, "refused", GONE, ever_unknown=True),
    ],
    ids=["counted", "refused for something else", "may have been counted"],
)
def test_two_reports_of_a_claim_of_which_neither_gives_way_are_told(old: CallRecord) -> None:
    """Nothing is guessed where money may have been counted twice."""
    new = record(2, "accepted")

    for told in ([old, new], [new, old]):
        made = plan(told, [], ACCOUNTS)
        assert len(made.rows) == 1
        assert made.contradictory == [told[1]]


def test_a_report_of_another_meaning_under_a_known_id_is_told() -> None:
    """A list of another installation changes nothing."""
    told = record(1, "accepted")
    known = row(told, "forwarded")
    other = told.model_copy(update={"report": told.report.model_copy(update={"value": 4})})

    made = plan([other], [known], ACCOUNTS)

    assert (states(made), made.contradictory) == ({}, [other])


def test_a_report_of_a_customer_nobody_knows_waits_to_be_told_again() -> None:
    """Whom to bill it to is not in the journal; announcing the customer brings it."""
    told = record(1, "accepted")

    made = plan([told], [], {})

    assert (states(made), made.strangers) == ({}, [told])


@pytest.mark.parametrize("state", ["calling", "unknown", "refused", "accepted"])
def test_a_doubt_of_the_journal_is_kept_whatever_came_of_the_call(state: State) -> None:
    """By it alone a report that may have been counted is never made anew."""
    doubtful = record(1, state, GONE if state == "refused" else None, ever_unknown=True)

    assert Mark.of(doubtful).ever_unknown
