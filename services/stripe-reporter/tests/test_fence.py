"""No report is sent again once Stripe may have forgotten it: over all histories of calls."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe.answer_classes import Effect
from stripe_reporter.fence import (
    BY_HAND,
    CALL_LIFETIME,
    FENCE,
    MAX_AGE,
    AlreadyCounted,
    Call,
    CallInProgress,
    Decision,
    Entry,
    Fenced,
    IdentifierReused,
    RefusedByHand,
    State,
    TooOld,
    calling,
    decide,
    may_start,
)
from stripe_reporter.reports import Facts, Report
from stripe_reporter.stripe.responses import TABLE, Next, Response

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


def response(name: str) -> Response:
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
    """Time passes, then a copy is delivered; its caller may die before it writes the answer."""

    after: timedelta
    response: Response
    caller_dies: bool


@dataclass
class Account:
    """A Stripe that forgets an identifier after exactly the promised time, the worst case."""

    held_until: datetime | None = None
    charges: int = 0
    calls: list[tuple[datetime, Effect]] = field(default_factory=list)

    def call(self, at: datetime, effect: Effect) -> None:
        """Take a call; one of unknown outcome is counted, the worst case."""
        self.calls.append((at, effect))
        if effect is Effect.NOT_APPLIED or (self.held_until is not None and at < self.held_until):
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
        response=st.sampled_from(TABLE),
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
            account.call(now, step.response.effect)
            if not step.caller_dies:
                row = row.after(row, step.response, now)
    return decisions


@given(STEPS)
def test_no_history_charges_twice(steps: list[Step]) -> None:
    """Whatever Stripe answers, whichever caller dies, however late copies come."""
    account = Account()

    play(steps, account)

    assert account.charges <= 1


@given(STEPS)
def test_possibly_counted_calls_are_never_further_apart_than_the_fence(steps: list[Step]) -> None:
    """From the first call that may have been counted, none follows after 23 hours."""
    account = Account()

    play(steps, account)

    possibly = [at for at, effect in account.calls if effect is not Effect.NOT_APPLIED]
    assert not possibly or max(possibly) - min(possibly) < FENCE


@given(STEPS)
def test_nothing_is_called_after_it_was_accepted(steps: list[Step]) -> None:
    """A recorded acceptance is the last call."""
    account = Account()
    living = [replace(step, caller_dies=False) for step in steps]

    play(living, account)

    effects = [effect for _, effect in account.calls]
    assert Effect.APPLIED not in effects[:-1]


@given(STEPS)
def test_a_report_that_was_only_refused_is_sent_until_it_is_too_old(
    steps: list[Step],
) -> None:
    """Only definite refusals, at whatever intervals, never lead to the fence."""
    refused = [replace(step, response=response("refused"), caller_dies=False) for step in steps]

    decisions = play(refused, Account())

    for at, decision in decisions:
        expected = Call if at - FACTS.occurred_at < MAX_AGE else TooOld
        assert isinstance(decision, expected)


@given(STEPS)
def test_no_second_call_starts_while_one_may_be_under_way(steps: list[Step]) -> None:
    """After a caller died, the next call starts once its call must have ended."""
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
    called = calling(REPORT, None, START)
    row = called.after(called, response("lost"), START + timedelta(seconds=10))

    assert row.first_unknown_at == START
    assert row.answered_at == START + timedelta(seconds=10)


def test_the_next_key_follows_from_the_answer() -> None:
    """Stripe repeats a lost answer under the same key; after a 500 or a refusal the key is new."""
    first = calling(REPORT, None, START)
    keys = {
        name: first.after(first, response(name), START).key_n
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


def test_a_lost_call_is_unknown_since_it_began() -> None:
    """The fence treats a row left at ``calling`` like any unknown outcome."""
    row = entry(State.CALLING)

    assert isinstance(decide(REPORT, row, START + CALL_LIFETIME), CallInProgress)
    again = decide(REPORT, row, START + CALL_LIFETIME + timedelta(seconds=1))
    assert isinstance(again, Call)
    assert again.entry.first_unknown_at == START
    assert again.entry.key_n == 1
    assert decide(REPORT, row, START + FENCE) == Fenced(START)


def test_a_definite_refusal_does_not_settle_an_earlier_unknown_call() -> None:
    """The refusal says nothing about the call before it, so the fence stays."""
    row = entry(State.REFUSED, unknown=START)

    assert decide(REPORT, row, START + FENCE) == Fenced(START)


@pytest.mark.parametrize("name", [row.name for row in TABLE if row.next is Next.REJECT])
def test_a_refusal_leaves_a_report_unknown_that_was_ever_unknown(name: str) -> None:
    """Not even a deleted customer says whether the call before was counted."""
    again = calling(REPORT, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    after = again.after(again, response(name), again.started_at)

    assert after.state is State.UNKNOWN
    assert after.first_unknown_at == START
    assert after.reason is None


def test_a_report_settled_as_not_counted_is_not_called() -> None:
    """However long its outcome was unknown; a person has settled it."""
    settled = replace(entry(State.REFUSED, unknown=START), answer=BY_HAND)

    assert decide(REPORT, settled, START + timedelta(days=90)) == RefusedByHand(settled)
    assert not settled.ever_unknown


def test_an_unknown_report_that_grew_too_old_is_fenced() -> None:
    """It can't be sent any more and may have been counted: a person decides."""
    old = replace(REPORT, facts=replace(FACTS, occurred_at=START - MAX_AGE))
    row = replace(entry(State.UNKNOWN, unknown=START), facts=old.facts)

    assert decide(old, row, START + timedelta(seconds=1)) == Fenced(START)


def test_an_accepted_report_is_only_published_again() -> None:
    """The outcome keeps the time of the acceptance, however late the delivery."""
    row = entry(State.ACCEPTED, unknown=START)

    assert decide(REPORT, row, START + timedelta(days=90)) == AlreadyCounted(
        START, ever_unknown=True
    )


def test_another_report_under_the_same_identifier_is_refused() -> None:
    """It is neither sent nor answered: Stripe would take it for the first one."""
    other = replace(REPORT, facts=replace(FACTS, value=4))

    assert decide(other, entry(State.ACCEPTED), START) == IdentifierReused()


def test_another_body_of_the_same_report_gets_a_new_key() -> None:
    """Stripe refuses a key whose parameters changed."""
    widened = replace(REPORT, dimensions=(("tool_name", "forecast"),))

    call = decide(widened, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    assert isinstance(call, Call)
    assert call.entry.key_n == 2


def test_a_process_that_was_frozen_after_its_claim_does_not_call() -> None:
    """Another may have taken the report over since."""
    call = Call(REPORT, calling(REPORT, None, START))

    assert may_start(call, START + timedelta(seconds=5))
    assert not may_start(call, START + timedelta(seconds=6))


def test_after_a_takeover_only_an_acceptance_changes_the_row() -> None:
    """The later call's row says more than any other answer to the earlier one."""
    first = calling(REPORT, None, START)
    later = START + timedelta(minutes=1)
    second = calling(REPORT, first, later)

    assert second.after(first, response("refused"), later) == second
    assert second.after(first, response("accepted"), later).state is State.ACCEPTED


def test_a_rate_limit_says_nothing_about_an_earlier_unknown_call() -> None:
    """The report stays unknown."""
    again = calling(REPORT, entry(State.UNKNOWN, unknown=START), START + timedelta(minutes=1))

    after = again.after(again, response("rate_limited"), again.started_at)

    assert after.state is State.UNKNOWN
    assert after.first_unknown_at == START
