"""The retry policy, over every outcome and every progress."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import InvalidEventError, UnreadableError, UnsupportedVersionError
from nexus_contracts.wording import BrokenRule
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.message import HEADER_PREFIX, Delivery, Message
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import (
    ATTEMPT,
    BUDGET,
    FIRST_FAILED_AT,
    MAX_DETAIL,
    WAITS,
    Acknowledge,
    CrashedConsumers,
    DeadLetter,
    Done,
    Failed,
    HandedBack,
    Outcome,
    Progress,
    Retry,
    decide,
    describe,
)
from nexus_messaging.topology import EVENTS, RETRY_RETURN, TIERS, TOOL_EXECUTED_QUEUE, Tier
from support import deliveries

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "s3cret@example.com"

moments = st.datetimes(timezones=st.just(UTC))
progresses = st.builds(
    Progress,
    attempt=st.integers(1, 2 * BUDGET),
    waits=st.integers(0, 10_000),
    first_failed_at=st.none() | moments,
)
broken = st.builds(BrokenRule, st.text(), st.text())
permanent = st.one_of(
    st.builds(PermanentError, st.sampled_from(Reason), st.text()),
    st.builds(InvalidEventError, broken),
    st.builds(UnreadableError, broken),
    st.builds(UnsupportedVersionError, broken),
)
transient = st.one_of(
    st.builds(TransientError, st.text()),
    st.builds(TransientError, st.text(), tier=st.sampled_from(TIERS)),
)
unexpected = st.sampled_from(
    [RuntimeError(SECRET), KeyError(SECRET), ValueError(SECRET), TimeoutError(), OSError(SECRET)]
)

outcomes = st.one_of(
    st.just(Done()),
    st.builds(HandedBack, st.none() | st.sampled_from(TIERS)),
    st.builds(Failed, permanent | transient | unexpected),
)
header_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


def delivery(exchange: str = RETRY_RETURN, **headers: object) -> Delivery:
    """Return a delivery with headers, from a retry tier unless said otherwise."""
    named = {f"nexus-{name.replace('_', '-')}": value for name, value in headers.items()}
    return deliveries.delivery(Message(b""), TOOL_EXECUTED_QUEUE, exchange, headers=named)


@given(outcomes, progresses, moments)
def test_every_outcome_has_exactly_one_consequence(
    outcome: Outcome, progress: Progress, now: datetime
) -> None:
    """An ack, a copy in an existing tier, or a dead letter; the decision is deterministic."""
    decision = decide(outcome, progress, now)

    assert decision == decide(outcome, progress, now)
    assert isinstance(decision, Acknowledge) == isinstance(outcome, Done)
    if isinstance(decision, Retry):
        assert decision.tier in TIERS


@given(unexpected)
def test_unexpected_failure_gets_five_deliveries(error: Exception) -> None:
    """Five deliveries, each wait longer than the one before, then a dead letter."""
    progress, waits = Progress(), []
    while isinstance(decision := decide(Failed(error), progress, NOW), Retry):
        waits.append(decision.tier.wait)
        progress = decision.progress

    assert isinstance(decision, DeadLetter)
    assert (decision.reason, decision.attempts) == (Reason.ATTEMPTS_SPENT, BUDGET)
    assert waits == sorted(set(waits))
    assert len(waits) == BUDGET - 1


@given(unexpected, progresses)
def test_a_spent_budget_is_never_exceeded(error: Exception, progress: Progress) -> None:
    """For any counters, a retry of an unexpected failure is within the budget."""
    decision = decide(Failed(error), progress, NOW)

    assert isinstance(decision, DeadLetter) == (progress.attempt >= BUDGET)
    if isinstance(decision, Retry):
        assert decision.progress.attempt == progress.attempt + 1 <= BUDGET


@given(transient, progresses)
def test_transient_failure_spends_no_budget(error: TransientError, progress: Progress) -> None:
    """It is never dead-lettered; without a tier of its own, each wait is longer."""
    decision = decide(Failed(error), progress, NOW)

    assert isinstance(decision, Retry)
    assert decision.progress.attempt == progress.attempt
    assert decision.progress.waits == progress.waits + 1
    assert decision.tier == (error.tier or TIERS[min(progress.waits, len(TIERS) - 1)])


@given(permanent, progresses)
def test_a_permanent_failure_is_never_retried(error: Exception, progress: Progress) -> None:
    """Its own reason is the dead letter's."""
    decision = decide(Failed(error), progress, NOW)

    assert isinstance(decision, DeadLetter)
    assert decision.reason == error.reason  # type: ignore[attr-defined] # all of these have one
    assert decision.attempts == progress.attempt


@given(progresses, st.none() | st.sampled_from(TIERS))
def test_handed_back_delivery_keeps_its_counters(progress: Progress, tier: Tier | None) -> None:
    """It waits in the given tier, or in the shortest one."""
    assert decide(HandedBack(tier), progress, NOW) == Retry(tier or TIERS[0], progress)


@given(progresses, unexpected | transient)
def test_the_first_failure_is_remembered(progress: Progress, error: Exception) -> None:
    """An operator sees since when, not since the last retry."""
    decision = decide(Failed(error), progress, NOW)

    seen = decision.progress.first_failed_at if isinstance(decision, Retry) else None
    if isinstance(decision, DeadLetter):
        seen = decision.first_failed_at
    assert seen == (progress.first_failed_at or NOW)


@given(progresses)
def test_progress_survives_a_retry_tier(progress: Progress) -> None:
    """What the headers of a copy say is what its next delivery reads."""
    returned = deliveries.delivery(
        Message(b""), TOOL_EXECUTED_QUEUE, RETRY_RETURN, headers=progress.headers()
    )

    assert Progress.of(returned) == progress


@pytest.mark.parametrize("exchange", ["", EVENTS, "dead", TIERS[0].name])
def test_counters_count_only_on_a_return_from_a_retry_tier(exchange: str) -> None:
    """An operator's move keeps every header and must start again; a publisher can't forge any."""
    moved = delivery(exchange, attempt=BUDGET, waits=7, first_failed_at=NOW.isoformat())

    assert Progress.of(moved) == Progress()


@given(header_values, header_values, header_values)
def test_invalid_counters_are_read_as_absent(attempt: object, waits: object, first: object) -> None:
    """Nothing in a header makes reading it fail, and no count is ever below its least."""
    progress = Progress.of(delivery(attempt=attempt, waits=waits, first_failed_at=first))

    assert progress.attempt >= 1
    assert progress.waits >= 0
    assert progress.first_failed_at is None or progress.first_failed_at.tzinfo is not None


@given(permanent | unexpected, progresses, moments)
def test_dead_letter_has_seven_headers_and_no_counter(
    error: Exception, progress: Progress, now: datetime
) -> None:
    """Seven headers of ours, no counter among them, the error's text within one kibibyte."""
    decision = decide(Failed(error), Progress(BUDGET, progress.waits), now)
    assert isinstance(decision, DeadLetter)

    headers = decision.headers(service="usage-ingest", requeue_to=TOOL_EXECUTED_QUEUE, now=now)

    assert headers.keys() == {
        "nexus-reason",
        "nexus-error",
        "nexus-attempts",
        "nexus-first-failed-at",
        "nexus-failed-at",
        "nexus-service",
        "nexus-requeue-to",
    }
    assert all(name.startswith(HEADER_PREFIX) for name in headers)
    assert not headers.keys() & {ATTEMPT, WAITS}
    assert FIRST_FAILED_AT in headers
    assert headers["nexus-reason"] in list(Reason)
    assert len(str(headers["nexus-error"]).encode()) <= MAX_DETAIL


@given(unexpected)
def test_text_of_a_foreign_exception_is_left_out(error: Exception) -> None:
    """It may quote the failing value; only the class is named."""
    assert describe(error) == type(error).__name__


@pytest.mark.parametrize("detail", ["x" * 5000, "é" * 5000, "\ud800" * 5000])
def test_a_long_text_is_cut_to_one_kibibyte(detail: str) -> None:
    """Counted in bytes, and still text that AMQP can carry."""
    text = describe(PermanentError(Reason.INVALID, detail))

    assert MAX_DETAIL - 4 < len(text.encode()) <= MAX_DETAIL


def test_message_that_crashes_consumers_names_its_deliveries() -> None:
    """The reason is its own, and the count is the broker's."""
    letter = decide(CrashedConsumers(12), Progress(), NOW)

    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.attempts) == (Reason.CRASHED_CONSUMER, 12)
    assert letter.first_failed_at == NOW


def test_waits_of_the_budget_outlast_an_hour_of_outage() -> None:
    """An unexpected failure survives an outage of an hour."""
    assert sum((tier.wait for tier in TIERS), timedelta()) > timedelta(hours=1)
