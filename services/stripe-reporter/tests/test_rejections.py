"""Which report a rejected attempt concerns, and whether the report's acceptance rests on it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from nexus_contracts import UsageRejectedLater
from nexus_contracts.envelope import Event
from stripe_reporter.fence import BY_HAND, Entry, RejectedLater, State, calling, decide
from stripe_reporter.outcomes import conclude
from stripe_reporter.rejections import Rejection, Sample, Verdict, judge, rejections
from stripe_reporter.reports import Facts, Report, attempt_of, idempotency_key
from stripe_reporter.stripe.responses import TABLE, Response

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPORT = Report("nexus:r1", Facts(UUID(int=1), "cus_1", "tool_calls", 5, START))


def response(name: str) -> Response:
    """Return the response to a class of answers."""
    return next(row for row in TABLE if row.name == name)


def answered(*names: str) -> Entry:
    """Return the row of a report after calls with these answers, a minute apart."""
    row, now = None, START
    for name in names:
        now += timedelta(minutes=1)
        called = calling(REPORT, row, now)
        row = called.after(called, response(name), now)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("key", "attempt"),
    [
        (idempotency_key("nexus:r1", 3), ("nexus:r1", 3)),
        ("a:b:12", ("a:b", 12)),
        ("3b241101-e2bb-4255-8caf-4136c566a962", None),
        ("nexus:r1:", None),
        (":1", None),
        ("", None),
        ("order:0", None),
        ("nexus:r1:01", None),
        ("nexus\x00r1:1", None),
        ("größe:1", None),
        (f"{'r' * 101}:1", None),
        ("nexus:r1:٣", None),
        ("nexus:r1:99999999999", None),
    ],
)
def test_a_key_of_ours_names_a_report_and_its_attempt(
    key: str, attempt: tuple[str, int] | None
) -> None:
    """Another sender's key, of whatever form, names nothing."""
    assert attempt_of(key) == attempt


def test_each_attempt_is_named_once() -> None:
    """Stripe may name a request twice, with one code or with two; foreign ones are left out."""
    samples = [Sample("r:1", "no_meter"), Sample("foreign", "no_meter"), Sample("r:1", "other")]

    assert list(rejections(samples)) == [Rejection("r", 1, "no_meter")]


@pytest.mark.parametrize(
    ("answers", "key_n", "verdict"),
    [
        (("accepted",), 1, Verdict.REJECTED),
        (("accepted",), 2, Verdict.OTHER_ATTEMPT),
        # The first call was refused at once, so the second is the one that counts.
        (("refused", "accepted"), 1, Verdict.OTHER_ATTEMPT),
        (("refused", "accepted"), 2, Verdict.REJECTED),
        # A 500 may have been counted; the new key's success says that it was not.
        (("server_error", "accepted"), 1, Verdict.OTHER_ATTEMPT),
        (("server_error", "duplicate"), 1, Verdict.REJECTED),
        (("server_error", "server_error", "duplicate"), 1, Verdict.REJECTED),
        (("server_error", "server_error", "duplicate"), 2, Verdict.REJECTED),
        # The same key again, of whose call Stripe has kept the meter event and not the answer.
        (("lost", "duplicate"), 1, Verdict.REJECTED),
        (("lost", "duplicate"), 2, Verdict.OTHER_ATTEMPT),
        # The same key again: Stripe repeats the answer to the one call.
        (("lost", "accepted"), 1, Verdict.REJECTED),
        # Nothing is accepted yet.
        (("lost",), 1, None),
        (("refused",), 1, None),
    ],
)
def test_only_the_attempt_that_was_accepted_takes_the_report_with_it(
    answers: tuple[str, ...], key_n: int, verdict: Verdict | None
) -> None:
    """A sample rejects the attempt that its key names, and no other."""
    assert judge(answered(*answers), key_n) is verdict


def test_a_call_under_way_is_judged_once_it_is_answered() -> None:
    """Stripe may tell of an attempt before its answer has come."""
    assert judge(calling(REPORT, None, START), 1) is None


def test_a_report_that_a_person_settled_stays_so() -> None:
    """They have looked at Stripe, or made the usage there by other means."""
    row = replace(answered("lost"), state=State.ACCEPTED, answer=BY_HAND)

    assert judge(row, 1) is Verdict.BY_HAND


def test_a_row_of_the_previous_release_has_no_key_of_its_acceptance() -> None:
    """Any of its calls may be the one that counted."""
    row = replace(answered("refused", "accepted"), accepted_key_n=None)

    assert [judge(row, key_n) for key_n in (1, 2)] == [Verdict.REJECTED] * 2


def test_an_answer_that_comes_late_has_its_own_call_s_key() -> None:
    """The row has moved on to a later call, with a later key."""
    first = calling(REPORT, None, START)
    lost = first.after(first, response("server_error"), START)
    second = calling(REPORT, lost, START + timedelta(minutes=1))

    row = second.after(first, response("accepted"), START + timedelta(minutes=2))

    assert (row.state, row.accepted_key_n) == (State.ACCEPTED, 1)


def test_an_acceptance_is_not_changed_by_another_call_s_late_answer() -> None:
    """A duplicate was answered meanwhile; what is published of it stays the same."""
    first = calling(REPORT, None, START)
    second = calling(REPORT, first, START + timedelta(minutes=1))
    row = second.after(second, response("duplicate"), START + timedelta(minutes=2))

    for name in ("accepted", "duplicate"):
        assert row.after(first, response(name), START + timedelta(minutes=3)) == row


def test_a_report_that_is_given_back_is_never_sent_again() -> None:
    """However it comes back: it is announced once more, and not dead-lettered."""
    row = replace(answered("accepted"), rejected_later="no_meter", rejected_later_at=START)

    decision = decide(REPORT, row, START + timedelta(days=40))
    assert decision == RejectedLater("no_meter", START)
    conclusion = conclude(REPORT, decision, circuit=None, now=START)

    assert conclusion.error is None
    event = conclusion.event
    assert isinstance(event, Event)
    assert event.data == UsageRejectedLater(
        report_id=REPORT.facts.report_id, identifier="nexus:r1", at=START, code="no_meter"
    )
