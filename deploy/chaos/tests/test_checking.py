"""The check on constructed evidence: it must find each loss, double billing and open end."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from local_stack.dead_letters import DeadLetter
from metering_chaos.checking import check, dead_letters_to_move
from metering_chaos.evidence import (
    Evidence,
    FirstUse,
    HourDifference,
    LateReading,
    LaterWord,
    LedgerEvent,
    Message,
    MessageKind,
    MeterEvent,
    ModelUsage,
    Organisation,
    Report,
    ToolRun,
)
from metering_chaos.findings import Violation

ADA, BOB, CEY, ACME = (UUID(int=number) for number in range(1, 5))
METER, PREMIUM = "tool_call_executed", "premium_tool_calls"
COST, TOOLS = "llm_cost_micros", "unique_tools"
CLAIM, OF_ACME, LATE = UUID(int=70), UUID(int=71), UUID(int=72)
QUEUE = "usage-ingest.tool-executed.dlq"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run(
    number: int,
    *,
    status: str = "succeeded",
    user: UUID = ADA,
    tokens: int = 5,
    usage: ModelUsage | None = None,
) -> Message:
    """Return the message of a tool run."""
    content = ToolRun(user, "browser", "open_page", "hub", status, tokens)
    body = f"run {number} of {user}: {status} {tokens} {usage}".encode()
    event_id = UUID(int=100 + number)
    return Message(MessageKind.RUN, "tool.executed", event_id, body, run=content, usage=usage)


def stored(message: Message, state: str = "claimed", claim: UUID | None = CLAIM) -> LedgerEvent:
    """Return the row of the ledger for a run."""
    assert message.run is not None
    return LedgerEvent(message.event_id, message.run, state, claim, message.usage)


def report(**changes: Any) -> Report:
    """Return the report of Ada's two runs, which are premium."""
    sound = report_of(90, CLAIM, "cus_ada", PREMIUM, 2, 2)
    return replace(sound, **changes)


def report_of(
    number: int, claim: UUID, customer: str, meter: str, value: int, readings: int
) -> Report:
    """Return a report that Stripe has counted."""
    identifier = f"nexus:{number}"
    report_id = UUID(int=number)
    return Report(report_id, identifier, claim, customer, meter, value, readings, "reported")


def counted(report: Report) -> MeterEvent:
    """Return what Stripe has accepted of a report."""
    return MeterEvent(report.identifier, report.customer, report.meter, report.value, 1, NOON)


ANOTHER = MeterEvent("nexus:91", "cus_ada", PREMIUM, 2, 1, NOON)
INVALID = Message(MessageKind.INVALID, "tool.executed.v1", UUID(int=200), b"{not json")
CREATED = Message(MessageKind.USER, "user.created.v1", UUID(int=300), b"ada", user=ADA)
FAILED = run(3, status="failed")
WITH_MODEL = run(2, usage=ModelUsage("claude-haiku-4-5", 12, 0))
OF_CEY = run(5, user=CEY, usage=ModelUsage("claude-sonnet-4-5", 10, 2))
OTHERS = (
    # 12 micro-USD and the 30 % of the plan Free, rounded.
    report_of(92, CLAIM, "cus_ada", COST, 16, 1),
    # Enterprise counts premium runs as all others, and has no markup.
    report_of(93, OF_ACME, "cus_acme", METER, 1, 1),
    report_of(94, OF_ACME, "cus_acme", TOOLS, 1, 1),
    report_of(95, LATE, "cus_acme", COST, 60, 1),
)
SOUND = Evidence(
    confirmed=(run(1), WITH_MODEL, WITH_MODEL, FAILED, run(4, user=BOB), OF_CEY, INVALID, CREATED),
    unconfirmed=(),
    organisations=(Organisation(ACME, "enterprise", (CEY,)),),
    events=(
        stored(run(1)),
        stored(WITH_MODEL),
        stored(FAILED, "not_billable", None),
        stored(run(4, user=BOB), "waiting", None),
        stored(OF_CEY, claim=OF_ACME),
    ),
    late_readings=(LateReading(OF_CEY.event_id, 60, "claimed", LATE),),
    first_uses=(FirstUse(ACME, "browser", "open_page", OF_ACME),),
    reports=(report(), *OTHERS),
    profiles=frozenset({ADA, ACME}),
    accounts={ADA: "cus_ada", ACME: "cus_acme"},
    dead_letters=(DeadLetter(QUEUE, "unreadable", INVALID.body),),
    meter_events=tuple(counted(each) for each in (report(), *OTHERS)),
    sums={(each.customer, each.meter): each.value for each in (report(), *OTHERS)},
    customers={"cus_ada": ADA, "cus_acme": ACME},
    queued={"usage-ingest.tool-executed": 0},
)


def first_report(**changes: Any) -> dict[str, Any]:
    """Return the change of one report of sound evidence."""
    return {"reports": (report(**changes), *OTHERS)}


def first_sum(value: int) -> dict[str, Any]:
    """Return the change of one sum at Stripe."""
    return {"sums": {**SOUND.sums, ("cus_ada", PREMIUM): value}}


def violations(**changes: Any) -> set[Violation]:
    """Return the violations that sound evidence has after ``changes``."""
    return {each.violation for each in check(replace(SOUND, **changes)).findings}


def test_sound_evidence_is_clean() -> None:
    """Recorded, dead-lettered, waiting, free, billed, by plan and later: all of it adds up."""
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
    "a model and tokens that are stored nowhere": lambda: {
        "confirmed": (*SOUND.confirmed, run(1, usage=WITH_MODEL.usage))
    },
    "a reported report that Stripe never counted": lambda: {"meter_events": SOUND.meter_events[1:]},
    "a report that sums too few of its runs": lambda: first_report(value=1),
    "a claim without a report for a meter": lambda: {"reports": SOUND.reports[1:]},
    "a cost that is on no report": lambda: {"reports": (report(), *OTHERS[1:])},
    "a cost without the markup of the plan": lambda: {
        "reports": (report(), replace(OTHERS[0], value=12), *OTHERS[1:])
    },
    "a tool whose first use was not taken": lambda: {"first_uses": ()},
}


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES.keys())
def test_loss_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """What was confirmed and is neither stored nor dead-lettered nor counted is lost."""
    assert Violation.LOST in violations(**changes())


DOUBLES: dict[str, Callable[[], dict[str, Any]]] = {
    "an identifier accepted twice": lambda: {
        "meter_events": (replace(SOUND.meter_events[0], times=2),),
        **first_sum(4),
    },
    "an identifier that belongs to no report": lambda: {
        "meter_events": (
            *SOUND.meter_events,
            ANOTHER,
        )
    },
    "two valid reports of one claim": lambda: {
        "reports": (*SOUND.reports, report(report_id=UUID(int=91), identifier="nexus:91")),
        "meter_events": (
            *SOUND.meter_events,
            ANOTHER,
        ),
        **first_sum(4),
    },
    "a report that sums more than its runs": lambda: first_report(value=3),
    "a cost that is billed with its run and later": lambda: {
        "reports": (*SOUND.reports, report_of(96, OF_ACME, "cus_acme", COST, 60, 1))
    },
    "a late reading of a run without tokens": lambda: {
        "late_readings": (*SOUND.late_readings, LateReading(run(1).event_id, 9, "claimed", CLAIM))
    },
    "a first use that was taken twice": lambda: {
        "first_uses": (*SOUND.first_uses, *SOUND.first_uses)
    },
    "an event that is in the ledger twice": lambda: {"events": (*SOUND.events, SOUND.events[0])},
}


@pytest.mark.parametrize("changes", DOUBLES.values(), ids=DOUBLES.keys())
def test_double_billing_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """What is counted more often than it happened is billed twice."""
    assert Violation.DOUBLE_BILLED in violations(**changes())


OPEN_ENDS: dict[str, Callable[[], dict[str, Any]]] = {
    "an event that was never published": lambda: {
        "events": (*SOUND.events, stored(run(9), "waiting", None)),
        "accounts": {ADA: "cus_ada", ACME: "cus_acme"},
    },
    "an event still due": lambda: {"events": (stored(run(1), "due", None), *SOUND.events[1:])},
    "an event that waits although its user has a customer": lambda: {
        "accounts": {**SOUND.accounts, BOB: "cus_bob"}
    },
    "a member's event that waits although the organisation has a customer": lambda: {
        "events": (*SOUND.events, stored(run(6, user=CEY), "waiting", None)),
        "confirmed": (*SOUND.confirmed, run(6, user=CEY)),
    },
    "a free run that is billed": lambda: {
        "events": (*SOUND.events[:2], stored(FAILED), *SOUND.events[3:])
    },
    "a late reading still due": lambda: {
        "late_readings": (replace(SOUND.late_readings[0], state="due", claim=None),),
        "reports": SOUND.reports[:-1],
    },
    "a late reading of another value": lambda: {
        "late_readings": (replace(SOUND.late_readings[0], value=61),)
    },
    "a member's run that the member pays": lambda: {
        "customers": {**SOUND.customers, "cus_acme": CEY}
    },
    "a report still under way": lambda: {
        **first_report(state="forwarded"),
        "meter_events": SOUND.meter_events[1:],
    },
    "a refused report that Stripe counted": lambda: first_report(state="rejected"),
    "another value at Stripe": lambda: {
        "meter_events": (replace(SOUND.meter_events[0], value=3), *SOUND.meter_events[1:])
    },
    "sums that differ": lambda: first_sum(3),
    "a sum of an unknown customer": lambda: {"sums": {**SOUND.sums, ("cus_eve", METER): 1}},
    "a user who cannot be billed": lambda: {"profiles": SOUND.profiles | {BOB}},
    "a user with two customers": lambda: {"customers": {**SOUND.customers, "cus_ada2": ADA}},
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


def uncounted() -> dict[str, Any]:
    """Return the change of a report that Stripe never counted."""
    return {"meter_events": SOUND.meter_events[1:], **first_sum(0)}


def test_report_of_unknown_outcome_is_accounted_for() -> None:
    """It waits for a person, and Stripe may have counted it or not."""
    letters = (*SOUND.dead_letters, dead_report("outcome_unknown"))
    forwarded = first_report(state="forwarded")

    assert not violations(**forwarded, dead_letters=letters)
    assert not violations(**forwarded, dead_letters=letters, **uncounted())


def test_report_dead_lettered_for_another_reason_must_not_be_counted() -> None:
    """A dead letter accounts for a report that was not sent; a counted one is an open end."""
    letters = (*SOUND.dead_letters, dead_report("attempts_spent"))
    forwarded = first_report(state="forwarded")

    assert not violations(**forwarded, dead_letters=letters, **uncounted())
    assert violations(**forwarded, dead_letters=letters) == {Violation.UNACCOUNTED}


def test_refused_report_is_accounted_for() -> None:
    """What Stripe refuses and never counts is neither lost nor open."""
    assert not violations(**first_report(state="rejected"), **uncounted())


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
    often = replace(SOUND.meter_events[0], times=4)
    verdict = check(replace(SOUND, meter_events=(often, *SOUND.meter_events[1:])))

    assert verdict.count(Violation.DOUBLE_BILLED) == 6


def test_dead_letters_without_a_fault_in_the_message_are_named() -> None:
    """They are not lost, but a person has to move them back."""
    crashed = DeadLetter(QUEUE, "crashed_consumer", b"fine")

    assert dead_letters_to_move(
        replace(SOUND, dead_letters=(*SOUND.dead_letters, crashed, crashed))
    ) == [f"{QUEUE}: crashed_consumer 2"]


def not_counted(*, state: str = "reported", **changes: Any) -> dict[str, Any]:
    """Return the change of a report that Stripe accepted and does not count."""
    lost = replace(SOUND.meter_events[0], counted=False)
    meter_events = (lost, *SOUND.meter_events[1:])
    return {"meter_events": meter_events, **first_sum(0), **first_report(state=state), **changes}


def later(*differences: tuple[str, int], rejected: tuple[str, ...] = ()) -> LaterWord:
    """Return what Stripe has said later; the differences are Ada's, by kind and amount."""
    found = [HourDifference("cus_ada", PREMIUM, NOON, *each) for each in differences]
    return LaterWord(frozenset(rejected), found)


NAMED = report().identifier


def test_what_stripe_left_out_is_a_difference_or_rejected_later() -> None:
    """Silently dropped it is a difference of its hour, and named by Stripe it is a mark."""
    assert not violations(later=later())
    assert not violations(**not_counted())
    assert not violations(**not_counted(later=later(("lower", -2))))
    rejected = later(rejected=(NAMED,))
    assert not violations(**not_counted(state="rejected_later", later=rejected))


WRONG_LATER: dict[str, Callable[[], dict[str, Any]]] = {
    "a difference that was missed": lambda: not_counted(later=later()),
    "a difference of another amount": lambda: not_counted(later=later(("lower", -1))),
    "a difference of another kind": lambda: not_counted(later=later(("gone", -2))),
    "a difference that is none": lambda: {"later": later(("higher", 1))},
    "a difference beside a mark": lambda: not_counted(
        state="rejected_later", later=later(("lower", -2), rejected=(NAMED,))
    ),
    "a rejection that was not heard": lambda: not_counted(
        later=later(("lower", -2), rejected=(NAMED,))
    ),
    "a mark that Stripe has not given": lambda: not_counted(state="rejected_later", later=later()),
    "a rejected report that was never accepted": lambda: {
        **uncounted(),
        **first_report(state="rejected_later"),
    },
}


@pytest.mark.parametrize("changes", WRONG_LATER.values(), ids=WRONG_LATER.keys())
def test_wrong_later_word_is_found(changes: Callable[[], dict[str, Any]]) -> None:
    """Each mark and each difference has its cause at Stripe, and each cause its effect."""
    assert violations(**changes())


def test_a_deleted_customer_lacks_all_that_was_reported() -> None:
    """Nothing can be read of it, so all of it is missing, by hour."""
    gone = HourDifference("cus_ada", PREMIUM, NOON, "gone", -2)
    cost = HourDifference("cus_ada", COST, NOON, "gone", -16)
    without = {"customers": {"cus_acme": ACME}}

    assert not violations(**without, later=LaterWord(frozenset(), (gone, cost)))
    assert violations(**without, later=LaterWord(frozenset(), (gone,)))


def test_a_counted_report_of_unknown_outcome_hides_what_is_missing() -> None:
    """Two that were lost and two that nobody knows of make the sum that the ledger expects."""
    unknown = report(report_id=UUID(int=91), identifier="nexus:91", state="forwarded")
    body = f'{{"data": {{"report_id": "{unknown.report_id}"}}}}'.encode()
    changed = not_counted(later=later())
    changed["meter_events"] = (*changed["meter_events"], counted(unknown))
    changed["reports"] = (*changed["reports"], unknown)
    letters = (*SOUND.dead_letters, DeadLetter(QUEUE, "outcome_unknown", body))

    found = check(replace(SOUND, **changed, dead_letters=letters)).findings

    assert not [each for each in found if "difference" in each.what]
