"""No report is sent again once Stripe may have forgotten it: over all histories of calls."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_reporter.entries import BY_HAND, CALL_LIFETIME, Entry, State, calling
from stripe_reporter.fence import (
    FENCE,
    OLDEST,
    BeingCalled,
    Call,
    Counted,
    Decision,
    Fenced,
    NotCounted,
    Taken,
    TooOld,
    decide,
    may_start,
)
from stripe_reporter.meanings import TABLE, Effect, Meaning, Then
from stripe_reporter.reports import Facts, Report

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = timedelta(hours=24)
"""What Stripe promises for an identifier."""

FACTS = Facts(
    report_id=UUID(int=1),
    stripe_customer_id="cus_1",
    meter="tool_call_executed",
    value=3,
    occurred_at=START - timedelta(minutes=1),
)
REPORT = Report("r-1", FACTS)


def meaning(name: str) -> Meaning:
    """Return a row of the table."""
    return next(row for row in TABLE if row.name == name)


def entry(state: State, *, started: datetime = START, unknown: datetime | None = None) -> Entry:
    """Return a journal row after one call."""
    return Entry(
        facts=FACTS,
        state=state,
        key_n=1,
        attempts=1,
        started_at=started,
        first_unknown_at=unknown,
        answered_at=None if state is State.CALLING else started,
        request_digest=REPORT.request_digest(),
    )


@dataclass(frozen=True)
class Step:
    """Time passes, then a copy is delivered; its caller may die before writing the answer."""

    after: timedelta
    meaning: Meaning
    caller_dies: bool


@dataclass
class Account:
    """A Stripe that forgets an identifier after exactly the promised time, the worst it may do."""

    held_until: datetime | None = None
    charges: int = 0
    calls: list[tuple[datetime, Effect]] = field(default_factory=list)

    def call(self, at: datetime, effect: Effect) -> None:
        """Take a call; one of unknown outcome is counted, the worst it may mean."""
        self.calls.append((at, effect))
        if effect is Effect.NOT_COUNTED or (self.held_until is not None and at < self.held_until):
            return
        self.charges += 1
        self.held_until = at + WINDOW


STEPS = st.lists(
    st.builds(
        Step,
        after=st.one_of(
            st.timedeltas(timedelta(), timedelta(minutes=1)),
            st.timedeltas(timedelta(), timedelta(hours=30)),
            st.timedeltas(timedelta(), timedelta(days=40)),
        ),
        meaning=st.sampled_from(TABLE),
        caller_dies=st.booleans(),
    ),
    max_size=30,
)


def play(steps: list[Step], account: Account) -> list[tuple[datetime, Decision]]:
    """Play a history of deliveries; return what was decided at each, and when."""
    now, row, decisions = START, None, []
    for step in steps:
        now += step.after
        decision = decide(REPORT, row, now)
        decisions.append((now, decision))
        if isinstance(decision, Call):
            row = decision.entry
            account.call(now, step.meaning.effect)
            if not step.caller_dies:
                row = row.answered(row.attempts, step.meaning, now)
    return decisions


@given(STEPS)
def test_no_history_charges_twice(steps: list[Step]) -> None:
    """Whatever Stripe answers, whoever dies and however late copies come: at most one charge."""
    account = Account()

    play(steps, account)

    assert account.charges <= 1


@given(STEPS)
def test_possibly_counted_calls_are_never_further_apart_than_the_fence(steps: list[Step]) -> None:
    """From the first call that may have been counted, none follows after 23 hours."""
    account = Account()

    play(steps, account)

    possibly = [at for at, effect in account.calls if effect is not Effect.NOT_COUNTED]
    assert not possibly or max(possibly) - min(possibly) < FENCE


@given(STEPS)
def test_nothing_is_called_after_it_was_accepted(steps: list[Step]) -> None:
    """A recorded acceptance is the last call."""
    account = Account()
    living = [replace(step, caller_dies=False) for step in steps]

    play(living, account)

    effects = [effect for _, effect in account.calls]
    assert Effect.COUNTED not in effects[:-1]


@given(STEPS)
def test_a_report_that_was_certainly_not_counted_is_sent_until_it_is_too_old(
    steps: list[Step],
) -> None:
    """Only definite refusals, at whatever intervals, never lead to the fence."""
    refused = [replace(step, meaning=meaning("refused"), caller_dies=False) for step in steps]

    decisions = play(refused, Account())

    for at, decision in decisions:
        expected = Call if at - FACTS.occurred_at < OLDEST else TooOld
        assert isinstance(decision, expected)


@given(STEPS)
def test_a_call_that_may_be_under_way_is_not_joined(steps: list[Step]) -> None:
    """After a caller died nobody else calls before its call must have ended."""
    account = Account()
    dying = [replace(step, caller_dies=True) for step in steps]

    play(dying, account)

    moments = [at for at, _ in account.calls]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap > CALL_LIFETIME for gap in gaps)


@given(STEPS)
def test_key_numbers_and_attempts_only_rise(steps: list[Step]) -> None:
    """No idempotency key comes back after another was used."""
    calls = [each for _, each in play(steps, Account()) if isinstance(each, Call)]

    assert [call.entry.attempts for call in calls] == list(range(1, len(calls) + 1))
    assert [call.entry.key_n for call in calls] == sorted(call.entry.key_n for call in calls)


def test_the_outcome_is_unknown_since_the_call_began() -> None:
    """The fence counts from the start of the first call of unknown outcome, not from its end."""
    row = entry(State.UNKNOWN, unknown=START)

    assert isinstance(decide(REPORT, row, START + FENCE - timedelta(seconds=1)), Call)
    assert decide(REPORT, row, START + FENCE) == Fenced(START)


def test_a_call_is_unknown_from_its_start_on() -> None:
    """Stripe may have counted it the moment it was made, not when we gave up waiting."""
    row = calling(REPORT, None, START).answered(1, meaning("lost"), START + timedelta(seconds=10))

    assert row.first_unknown_at == START
    assert row.answered_at == START + timedelta(seconds=10)


def test_the_next_key_follows_from_the_answer() -> None:
    """A lost answer is to be had under the same key; after a 500 or a refusal a new one is due."""
    keys = {
        name: calling(REPORT, None, START).answered(1, meaning(name), START).key_n
        for name in ("lost", "rate_limited", "conflict", "unavailable", "server_error", "refused")
    }

    assert keys == {
        "lost": 1,
        "rate_limited": 1,
        "conflict": 1,
        "unavailable": 1,
        "server_error": 2,
        "refused": 2,
    }


def test_a_dead_caller_counts_as_unknown_since_it_began() -> None:
    """A row left at ``calling`` goes through the fence like any unknown outcome."""
    row = entry(State.CALLING)

    assert isinstance(decide(REPORT, row, START + CALL_LIFETIME), BeingCalled)
    again = decide(REPORT, row, START + CALL_LIFETIME + timedelta(seconds=1))
    assert isinstance(again, Call)
    assert again.entry.first_unknown_at == START
    assert again.entry.key_n == 1
    assert decide(REPORT, row, START + FENCE) == Fenced(START)


def test_a_definite_refusal_does_not_settle_an_earlier_unknown_call() -> None:
    """The refusal says nothing about the call before it, so the fence stays."""
    row = entry(State.REFUSED, unknown=START)

    assert decide(REPORT, row, START + FENCE) == Fenced(START)


@pytest.mark.parametrize("name", [row.name for row in TABLE if row.then is Then.REJECT])
def test_a_refusal_leaves_a_report_unknown_that_was_ever_unknown(name: str) -> None:
    """Not even a deleted customer tells whether the call before was counted."""
    again = calling(REPORT, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    after = again.answered(again.attempts, meaning(name), again.started_at)

    assert after.state is State.UNKNOWN
    assert after.first_unknown_at == START
    assert after.reason is None


def test_what_a_person_found_to_be_uncounted_makes_no_call() -> None:
    """However old the doubt is; there is none any more."""
    settled = replace(entry(State.REFUSED, unknown=START), answer=BY_HAND)

    assert decide(REPORT, settled, START + timedelta(days=90)) == NotCounted(settled)
    assert not settled.ever_unknown


def test_an_unknown_report_that_grew_too_old_is_fenced() -> None:
    """It can't be sent any more and may have been counted: a person has to look."""
    old = replace(REPORT, facts=replace(FACTS, occurred_at=START - OLDEST))
    row = replace(entry(State.UNKNOWN, unknown=START), facts=old.facts)

    assert decide(old, row, START + timedelta(seconds=1)) == Fenced(START)


def test_an_accepted_report_is_only_told_again() -> None:
    """The outcome keeps the time of the acceptance, however late the copy."""
    row = entry(State.ACCEPTED, unknown=START)

    assert decide(REPORT, row, START + timedelta(days=90)) == Counted(START, ever_unknown=True)


def test_another_report_under_the_same_identifier_is_refused() -> None:
    """Neither is its outcome told nor is it sent: Stripe would take it for the first one."""
    other = replace(REPORT, facts=replace(FACTS, value=4))

    assert decide(other, entry(State.ACCEPTED), START) == Taken()


def test_another_body_of_the_same_report_gets_a_new_key() -> None:
    """Stripe refuses a key whose parameters changed."""
    widened = replace(REPORT, dimensions=(("tool_name", "forecast"),))

    call = decide(widened, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    assert isinstance(call, Call)
    assert call.entry.key_n == 2


def test_a_process_that_slept_after_its_claim_does_not_call() -> None:
    """By then another may have taken the report over."""
    call = Call(REPORT, calling(REPORT, None, START))

    assert may_start(call, START + timedelta(seconds=5))
    assert not may_start(call, START + timedelta(seconds=6))


def test_an_answer_that_comes_after_a_takeover_changes_nothing_unless_it_is_an_acceptance() -> None:
    """The later caller's row says more; that Stripe counted it is true whoever hears it."""
    first = calling(REPORT, None, START)
    later = START + timedelta(minutes=1)
    second = calling(REPORT, first, later)

    assert second.answered(first.attempts, meaning("refused"), later) == second
    assert second.answered(first.attempts, meaning("accepted"), later).state is State.ACCEPTED


def test_a_rate_limit_says_nothing_about_an_earlier_unknown_call() -> None:
    """The report stays unknown until something is known of it."""
    again = calling(REPORT, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    after = again.answered(again.attempts, meaning("rate_limited"), again.started_at)

    assert after.state is State.UNKNOWN
    assert after.first_unknown_at == START
