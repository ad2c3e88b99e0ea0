"""The check on constructed evidence: it must find each loss, double billing and open end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from local_stack.dead_letters import DeadLetter
from metering_chaos.checking import Violation, check, dead_letters_to_move
from metering_chaos.evidence import (
    Evidence,
    LedgerEvent,
    Message,
    MessageKind,
    MeterEvent,
    Report,
    ToolRun,
)

ADA, BOB = UUID(int=1), UUID(int=2)
METER = "tool_call_executed"
CLAIM = UUID(int=70)
QUEUE = "usage-ingest.tool-executed.dlq"


def run(number: int, *, status: str = "succeeded", user: UUID = ADA, tokens: int = 5) -> Message:
    """Return the message of a tool run."""
    content = ToolRun(user, "weather", "forecast", "hub", status, tokens)
    body = f"run {number} of {user}: {status} {tokens}".encode()
    return Message(MessageKind.RUN, "tool.executed.v1", UUID(int=100 + number), body, run=content)


def stored(message: Message, state: str = "claimed", claim: UUID | None = CLAIM) -> LedgerEvent:
    """Return the row of the ledger for a run."""
    assert message.run is not None
    return LedgerEvent(message.event_id, message.run, state, claim)


def report(**changes: Any) -> Report:
    """Return a report of the two runs that sound evidence has."""
    sound = Report(UUID(int=90), "nexus:90", CLAIM, "cus_ada", METER, 2, 2, "reported")
    return replace(sound, **changes)


INVALID = Message(MessageKind.INVALID, "tool.executed.v1", UUID(int=200), b"{not json")
CREATED = Message(MessageKind.USER, "user.created.v1", UUID(int=300), b"ada", user=ADA)
FAILED = run(3, status="failed")
SOUND = Evidence(
    confirmed=(run(1), run(2), run(2), FAILED, run(4, user=BOB), INVALID, CREATED),
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
    dead_letters=(DeadLetter(QUEUE, "unreadable", INVALID.body),),
    meter_events=(MeterEvent("nexus:90", "cus_ada", METER, 2, 1),),
    sums={("cus_ada", METER): 2},
    customers={ADA: 1},
    queued={"usage-ingest.tool-executed": 0},
)


def violations(**changes: Any) -> set[Violation]:
    """Return the violations that sound evidence has after ``changes``."""
    return {each.violation for each in check(replace(SOUND, **changes)).findings}


def test_sound_evidence_is_clean() -> None:
    """Recorded, dead-lettered, waiting, free and billed: all of it adds up."""
    verdict = check(SOUND)

    assert verdict.clean
    assert str(verdict) == "lost=0 double_billed=0 unaccounted=0"


LOSSES: dict[str, Callable[[], dict[str, Any]]] = {
    "a run that is stored nowhere": lambda: {"confirmed": (*SOUND.confirmed, run(9))},
    "a run whose row has another content": lambda: {
        "confirmed": (*SOUND.confirmed, run(1, tokens=6))
    },
    "an invalid message that is stored nowhere": lambda: {"dead_letters": ()},
    "a dead letter with other bytes": lambda: {
        "dead_letters": (DeadLetter(QUEUE, "unreadable", INVALID.body + b" "),)
    },
    "a user without a profile": lambda: {"profiles": frozenset()},
    "a reported report that Stripe never counted": lambda: {"meter_events": ()},
    "a report that sums too few of its runs": lambda: {"reports": (report(value=1),)},
}


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES.keys())
def test_loss_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """What was confirmed and is neither stored nor dead-lettered nor counted is lost."""
    assert Violation.LOST in violations(**changes())


DOUBLES: dict[str, Callable[[], dict[str, Any]]] = {
    "an identifier accepted twice": lambda: {
        "meter_events": (replace(SOUND.meter_events[0], times=2),),
        "sums": {("cus_ada", METER): 4},
    },
    "an identifier that belongs to no report": lambda: {
        "meter_events": (*SOUND.meter_events, MeterEvent("nexus:91", "cus_ada", METER, 2, 1))
    },
    "two valid reports of one claim": lambda: {
        "reports": (report(), report(report_id=UUID(int=91), identifier="nexus:91")),
        "meter_events": (*SOUND.meter_events, MeterEvent("nexus:91", "cus_ada", METER, 2, 1)),
        "sums": {("cus_ada", METER): 4},
    },
    "a report that sums more than its runs": lambda: {"reports": (report(value=3),)},
    "an event that is in the ledger twice": lambda: {"events": (*SOUND.events, SOUND.events[0])},
}


@pytest.mark.parametrize("changes", DOUBLES.values(), ids=DOUBLES.keys())
def test_double_billing_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """What is counted more often than it happened is billed twice."""
    assert Violation.DOUBLE_BILLED in violations(**changes())


OPEN_ENDS: dict[str, Callable[[], dict[str, Any]]] = {
    "an event that was never published": lambda: {
        "events": (*SOUND.events, stored(run(9), "waiting", None)),
        "accounts": {},
    },
    "an event still due": lambda: {"events": (stored(run(1), "due", None), *SOUND.events[1:])},
    "an event that waits although its user has a customer": lambda: {
        "accounts": {ADA: "cus_ada", BOB: "cus_bob"}
    },
    "an event claimed by no report": lambda: {
        "events": (*SOUND.events[:-1], stored(run(4, user=BOB), "claimed", UUID(int=71)))
    },
    "a free run that is billed": lambda: {
        "events": (*SOUND.events[:2], stored(FAILED), SOUND.events[3])
    },
    "a report still under way": lambda: {
        "reports": (report(state="forwarded"),),
        "meter_events": (),
    },
    "a refused report that Stripe counted": lambda: {"reports": (report(state="rejected"),)},
    "another value at Stripe": lambda: {"meter_events": (replace(SOUND.meter_events[0], value=3),)},
    "sums that differ": lambda: {"sums": {("cus_ada", METER): 3}},
    "a sum of an unknown customer": lambda: {"sums": {**SOUND.sums, ("cus_eve", METER): 1}},
    "a user who cannot be billed": lambda: {"profiles": frozenset({ADA, BOB})},
    "a user with two customers": lambda: {"customers": {ADA: 2}},
    "a message left in a queue": lambda: {"queued": {"usage-ingest.tool-executed": 1}},
}


@pytest.mark.parametrize("changes", OPEN_ENDS.values(), ids=OPEN_ENDS.keys())
def test_open_end_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """What is neither lost nor billed twice and does not add up is unaccounted for."""
    assert Violation.UNACCOUNTED in violations(**changes())


def dead_report(reason: str) -> DeadLetter:
    """Return the dead letter of the report that sound evidence has."""
    body = f'{{"data": {{"report_id": "{report().report_id}"}}}}'.encode()
    return DeadLetter("stripe-reporter.usage-recorded.dlq", reason, body)


def test_report_of_unknown_outcome_is_accounted_for() -> None:
    """It waits for a person, and Stripe may have counted it or not."""
    letters = (*SOUND.dead_letters, dead_report("outcome_unknown"))
    forwarded = (report(state="forwarded"),)

    assert not violations(reports=forwarded, dead_letters=letters)
    assert not violations(reports=forwarded, dead_letters=letters, meter_events=(), sums={})


def test_report_dead_lettered_for_another_reason_must_not_be_counted() -> None:
    """A dead letter accounts for a report that was not sent; a counted one is an open end."""
    letters = (*SOUND.dead_letters, dead_report("attempts_spent"))
    forwarded = (report(state="forwarded"),)

    assert not violations(reports=forwarded, dead_letters=letters, meter_events=(), sums={})
    assert violations(reports=forwarded, dead_letters=letters) == {Violation.UNACCOUNTED}


def test_refused_report_is_accounted_for() -> None:
    """What Stripe refuses and never counts is neither lost nor open."""
    assert not violations(reports=(report(state="rejected"),), meter_events=(), sums={})


def test_dead_lettered_run_is_accounted_for() -> None:
    """A message is accounted for in any dead-letter queue if its bytes are unchanged."""
    lost = run(9)

    assert not violations(
        confirmed=(*SOUND.confirmed, lost),
        dead_letters=(*SOUND.dead_letters, DeadLetter(QUEUE, "event_id_taken", lost.body)),
    )


def test_unconfirmed_message_may_have_arrived() -> None:
    """It may be missing, and its row may be there."""
    late = run(9, user=BOB)

    assert not violations(unconfirmed=(late,))
    assert not violations(
        unconfirmed=(late,), events=(*SOUND.events, stored(late, "waiting", None))
    )


def test_verdict_counts_runs() -> None:
    """A report of two runs that is counted three times too often is six runs too many."""
    verdict = check(replace(SOUND, meter_events=(replace(SOUND.meter_events[0], times=4),)))

    assert verdict.count(Violation.DOUBLE_BILLED) == 6


def test_dead_letters_without_a_fault_in_the_message_are_named() -> None:
    """They are not lost, but a person has to move them back."""
    crashed = DeadLetter(QUEUE, "crashed_consumer", b"fine")

    assert dead_letters_to_move(
        replace(SOUND, dead_letters=(*SOUND.dead_letters, crashed, crashed))
    ) == [f"{QUEUE}: crashed_consumer 2"]
