"""What a delivery ends with, decided from what the journal and Stripe said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_stripe.answers import Receipt, StripeAnswer
from stripe_reporter.circuit import Cause, CircuitOpenError
from stripe_reporter.fence import (
    AlreadyCounted,
    CallInProgress,
    Entry,
    Fenced,
    IdentifierReused,
    NoCall,
    RefusedByHand,
    TooOld,
    calling,
)
from stripe_reporter.outcomes import (
    Answered,
    Conclusion,
    UnexpectedAnswerError,
    conclude,
    not_fetched,
    rejected,
    reported,
)
from stripe_reporter.reports import Facts, Report
from stripe_reporter.stripe.responses import TABLE

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
REPORT = Report("r-1", Facts(UUID(int=1), "cus_1", "tool_call_executed", 1, AT))
ENTRY = calling(REPORT, None, AT)
LATER = AT + timedelta(minutes=1)


def answered(name: str, before: Entry = ENTRY) -> Answered:
    """Return a call that was answered as the row ``name`` of the table says."""
    response = next(row for row in TABLE if row.name == name)
    return Answered(response, LATER, before.after(before, response, LATER), "text")


def concluded(result: Answered | NoCall, circuit: Cause | None = None) -> Conclusion:
    """Return what a delivery ends with."""
    return conclude(REPORT, result, circuit=circuit, now=LATER)


@pytest.mark.parametrize(
    ("result", "outcome", "event", "error"),
    [
        (answered("accepted"), "reported", "usage.reported.v1", None),
        (AlreadyCounted(AT, ever_unknown=True), "reported_again", "usage.reported.v1", None),
        (answered("refused"), "rejected", "usage.rejected.v1", PermanentError),
        (TooOld(None), "rejected", "usage.rejected.v1", PermanentError),
        (RefusedByHand(ENTRY), "rejected", "usage.rejected.v1", None),
        (answered("lost"), "waiting", None, TransientError),
        (answered("key_misused"), "waiting", None, UnexpectedAnswerError),
        (CallInProgress(), "deferred", None, TransientError),
        (Fenced(AT), "fenced", None, PermanentError),
        (IdentifierReused(), "taken", None, PermanentError),
    ],
)
def test_each_result_has_its_conclusion(
    result: Answered | NoCall, outcome: str, event: str | None, error: type[Exception] | None
) -> None:
    """The event to publish, and the error that has the message retried or dead-lettered."""
    conclusion = concluded(result)

    assert conclusion.outcome == outcome
    assert (conclusion.event and conclusion.event.type) == event
    assert (conclusion.error and type(conclusion.error)) == error


def test_refusal_after_an_unknown_call_is_not_published() -> None:
    """The earlier call may have been counted, so a person decides."""
    before = replace(calling(REPORT, ENTRY, AT), first_unknown_at=AT)

    conclusion = concluded(answered("no_such_customer", before))

    assert conclusion.event is None
    assert isinstance(conclusion.error, PermanentError)
    assert conclusion.error.reason is Reason.OUTCOME_UNKNOWN


def test_sign_of_an_outage_is_handed_back_once_the_circuit_is_open() -> None:
    """The message is retried while the circuit is closed, and spends no wait while it is open."""
    assert isinstance(concluded(answered("lost")).error, TransientError)
    assert isinstance(concluded(answered("lost"), Cause.OUTAGE).error, CircuitOpenError)
    assert isinstance(concluded(answered("conflict"), Cause.OUTAGE).error, TransientError)


def test_outcome_published_twice_is_one_event() -> None:
    """The same acceptance gives the same event, byte for byte; another refusal another one."""
    first = reported(REPORT, at=AT, ever_unknown=False)
    refusals = [
        rejected(REPORT, reason, replace(ENTRY, attempts=attempts), AT)
        for reason, attempts in [
            (Reason.NO_SUCH_CUSTOMER, 1),
            (Reason.NO_SUCH_CUSTOMER, 2),
            (Reason.REFUSED_BY_STRIPE, 1),
        ]
    ]

    assert first.body() == reported(REPORT, at=AT, ever_unknown=False).body()
    assert len({event.id for event in (first, *refusals)}) == 4


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        # Stripe has no such event, refuses to return it, or wrote it in another form.
        (StripeAnswer(Receipt.ANSWERED, status=404, request_id="req_1"), PermanentError),
        (StripeAnswer(Receipt.ANSWERED, status=400, request_id="req_1"), UnexpectedAnswerError),
        (StripeAnswer(Receipt.UNREADABLE, status=200, request_id="req_1"), UnexpectedAnswerError),
        # A gateway's answer, whatever it says.
        (StripeAnswer(Receipt.UNREADABLE, status=200), TransientError),
        (StripeAnswer(Receipt.UNREADABLE, status=400), TransientError),
        (StripeAnswer(Receipt.UNREADABLE, status=404), TransientError),
        # An outage, a key without the right, a limit.
        (StripeAnswer(Receipt.LOST), TransientError),
        (StripeAnswer(Receipt.UNREADABLE, status=500, request_id="req_1"), TransientError),
        (StripeAnswer(Receipt.ANSWERED, status=500, request_id="req_1"), TransientError),
        (StripeAnswer(Receipt.ANSWERED, status=401), TransientError),
        (StripeAnswer(Receipt.ANSWERED, status=403, request_id="req_1"), TransientError),
        (StripeAnswer(Receipt.ANSWERED, status=429, request_id="req_1"), TransientError),
    ],
)
def test_an_event_that_stripe_will_not_give_is_dead_lettered(
    answer: StripeAnswer, kind: type[Exception]
) -> None:
    """What time mends waits without end; the rest is shown to a person."""
    assert type(not_fetched(answer)) is kind
