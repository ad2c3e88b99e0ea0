"""The judgement on made-up evidence: it must see each loss, each double and each loose end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from metering_chaos.checking import Fault, check, innocent
from metering_chaos.evidence import (
    Charge,
    Evidence,
    Fact,
    LedgerEvent,
    Letter,
    Report,
    Sort,
    Wire,
)

ADA, BOB = UUID(int=1), UUID(int=2)
METER = "tool_call_executed"
CLAIM = UUID(int=70)
QUEUE = "usage-ingest.tool-executed.dlq"


def run(number: int, *, status: str = "succeeded", user: UUID = ADA, tokens: int = 5) -> Wire:
    """Return the message of a tool run."""
    fact = Fact(user, "weather", "forecast", "hub", status, tokens)
    body = f"run {number} of {user}: {status} {tokens}".encode()
    return Wire(Sort.RUN, "tool.executed.v1", UUID(int=100 + number), body, fact=fact)


def stored(wire: Wire, state: str = "claimed", claim: UUID | None = CLAIM) -> LedgerEvent:
    """Return the row of the ledger for a run."""
    assert wire.fact is not None
    return LedgerEvent(wire.event_id, wire.fact, state, claim)


def report(**changes: Any) -> Report:
    """Return a report of the two runs that sound evidence has."""
    sound = Report(UUID(int=90), "nexus:90", CLAIM, "cus_ada", METER, 2, 2, "reported")
    return replace(sound, **changes)


BROKEN = Wire(Sort.BROKEN, "tool.executed.v1", UUID(int=200), b"{not json")
CREATED = Wire(Sort.USER, "user.created.v1", UUID(int=300), b"ada", user=ADA)
FAILED = run(3, status="failed")
SOUND = Evidence(
    confirmed=(run(1), run(2), run(2), FAILED, run(4, user=BOB), BROKEN, CREATED),
    unconfirmed=(),
    events=(
        stored(run(1)),
        stored(run(2)),
        stored(FAILED, "not_billable", None),
        stored(run(4, user=BOB), "waiting", None),
    ),
    reports=(report(),),
    profiles=frozenset({ADA}),
    accounts={ADA: "cus_ada"},
    letters=(Letter(QUEUE, "unreadable", BROKEN.body),),
    charges=(Charge("nexus:90", "cus_ada", METER, 2, 1),),
    sums={("cus_ada", METER): 2},
    customers={ADA: 1},
    queued={"usage-ingest.tool-executed": 0},
)


def faults(**changes: Any) -> set[Fault]:
    """Return what kinds of faults sound evidence has after ``changes``."""
    return {each.fault for each in check(replace(SOUND, **changes)).findings}


def test_sound_evidence_is_clean() -> None:
    """Recorded, dead, waiting, free and paid: all of it adds up."""
    verdict = check(SOUND)

    assert verdict.clean
    assert str(verdict) == "lost=0 double_billed=0 unaccounted=0"


LOSSES: dict[str, Callable[[], dict[str, Any]]] = {
    "a run that is in no place": lambda: {"confirmed": (*SOUND.confirmed, run(9))},
    "a run whose row says something else": lambda: {
        "confirmed": (*SOUND.confirmed, run(1, tokens=6))
    },
    "a broken message that is in no place": lambda: {"letters": ()},
    "a dead letter with other bytes": lambda: {
        "letters": (Letter(QUEUE, "unreadable", BROKEN.body + b" "),)
    },
    "a user nobody knows": lambda: {"profiles": frozenset()},
    "a reported report that Stripe never counted": lambda: {"charges": ()},
    "a report that sums too few of its runs": lambda: {"reports": (report(value=1),)},
}


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES.keys())
def test_a_loss_is_seen(changes: Callable[[], dict[str, Any]]) -> None:
    """Whatever was confirmed and is neither stored nor parked nor counted is lost."""
    assert Fault.LOST in faults(**changes())


DOUBLES: dict[str, Callable[[], dict[str, Any]]] = {
    "an identifier accepted twice": lambda: {
        "charges": (replace(SOUND.charges[0], times=2),),
        "sums": {("cus_ada", METER): 4},
    },
    "an identifier that is no report's": lambda: {
        "charges": (*SOUND.charges, Charge("nexus:91", "cus_ada", METER, 2, 1))
    },
    "two standing reports of one claim": lambda: {
        "reports": (report(), report(report_id=UUID(int=91), identifier="nexus:91")),
        "charges": (*SOUND.charges, Charge("nexus:91", "cus_ada", METER, 2, 1)),
        "sums": {("cus_ada", METER): 4},
    },
    "a report that sums more than its runs": lambda: {"reports": (report(value=3),)},
    "an event that is in the ledger twice": lambda: {"events": (*SOUND.events, SOUND.events[0])},
}


@pytest.mark.parametrize("changes", DOUBLES.values(), ids=DOUBLES.keys())
def test_a_double_charge_is_seen(changes: Callable[[], dict[str, Any]]) -> None:
    """Whatever is counted more often than it happened is billed twice."""
    assert Fault.DOUBLE_BILLED in faults(**changes())


LOOSE_ENDS: dict[str, Callable[[], dict[str, Any]]] = {
    "an event that nobody published": lambda: {
        "events": (*SOUND.events, stored(run(9), "waiting", None)),
        "accounts": {},
    },
    "an event still due": lambda: {"events": (stored(run(1), "due", None), *SOUND.events[1:])},
    "an event that waits for a customer who is there": lambda: {
        "accounts": {ADA: "cus_ada", BOB: "cus_bob"}
    },
    "an event claimed by no report": lambda: {
        "events": (*SOUND.events[:-1], stored(run(4, user=BOB), "claimed", UUID(int=71)))
    },
    "a free run that is billed": lambda: {
        "events": (*SOUND.events[:2], stored(FAILED), SOUND.events[3])
    },
    "a report still under way": lambda: {"reports": (report(state="forwarded"),), "charges": ()},
    "a refused report that Stripe counted": lambda: {"reports": (report(state="rejected"),)},
    "another value at Stripe": lambda: {"charges": (replace(SOUND.charges[0], value=3),)},
    "sums that differ": lambda: {"sums": {("cus_ada", METER): 3}},
    "a sum of a customer nobody knows": lambda: {"sums": {**SOUND.sums, ("cus_eve", METER): 1}},
    "a user who cannot be billed": lambda: {"profiles": frozenset({ADA, BOB})},
    "a user who is two customers": lambda: {"customers": {ADA: 2}},
    "a message left in a queue": lambda: {"queued": {"usage-ingest.tool-executed": 1}},
}


@pytest.mark.parametrize("changes", LOOSE_ENDS.values(), ids=LOOSE_ENDS.keys())
def test_a_loose_end_is_seen(changes: Callable[[], dict[str, Any]]) -> None:
    """What is neither lost nor double but does not add up has no account."""
    assert Fault.UNACCOUNTED in faults(**changes())


def letter_of_a_report(reason: str) -> Letter:
    """Return the dead letter of the report that sound evidence has."""
    body = f'{{"data": {{"report_id": "{report().report_id}"}}}}'.encode()
    return Letter("stripe-reporter.usage-recorded.dlq", reason, body)


def test_a_fenced_report_is_accounted_for() -> None:
    """It waits for a person, and Stripe may have counted it or not."""
    letters = (*SOUND.letters, letter_of_a_report("outcome_unknown"))
    forwarded = (report(state="forwarded"),)

    assert not faults(reports=forwarded, letters=letters)
    assert not faults(reports=forwarded, letters=letters, charges=(), sums={})


def test_a_report_that_is_parked_for_another_reason_must_not_have_been_counted() -> None:
    """A dead letter accounts for what was not sent; what was sent and not noted is a loose end."""
    letters = (*SOUND.letters, letter_of_a_report("attempts_spent"))
    forwarded = (report(state="forwarded"),)

    assert not faults(reports=forwarded, letters=letters, charges=(), sums={})
    assert faults(reports=forwarded, letters=letters) == {Fault.UNACCOUNTED}


def test_a_refused_report_is_accounted_for() -> None:
    """What Stripe refuses and never counts is neither lost nor open."""
    assert not faults(reports=(report(state="rejected"),), charges=(), sums={})


def test_a_run_in_a_dead_letter_queue_is_accounted_for() -> None:
    """A message is as safe in any dead-letter queue as in the ledger, if its bytes are whole."""
    lost = run(9)

    assert not faults(
        confirmed=(*SOUND.confirmed, lost),
        letters=(*SOUND.letters, Letter(QUEUE, "event_id_taken", lost.body)),
    )


def test_an_unconfirmed_message_may_have_arrived() -> None:
    """Nothing is promised of it, and its row is no stranger."""
    late = run(9, user=BOB)

    assert not faults(unconfirmed=(late,))
    assert not faults(unconfirmed=(late,), events=(*SOUND.events, stored(late, "waiting", None)))


def test_runs_are_counted_in_a_verdict() -> None:
    """A charge made three times too often for two runs is six runs too many."""
    verdict = check(replace(SOUND, charges=(replace(SOUND.charges[0], times=4),)))

    assert verdict.count(Fault.DOUBLE_BILLED) == 6


def test_dead_letters_without_a_fault_of_their_own_are_named() -> None:
    """They are not lost, but somebody has to move them back."""
    crashed = Letter(QUEUE, "crashed_consumer", b"fine")

    assert innocent(replace(SOUND, letters=(*SOUND.letters, crashed, crashed))) == [
        f"{QUEUE}: crashed_consumer 2"
    ]
