"""What a delivery ends with: an event to publish, and its message done, waiting or dead-lettered.

Pure: values in, values out.
"""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid5

from nexus_contracts import Event, UsageRejected, UsageRejectedLater, UsageReported
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS
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
    RejectedLater,
    TooOld,
)
from stripe_reporter.reports import Report
from stripe_reporter.stripe.responses import Next, Response, describe, response_to

SOURCE: Final = "stripe-reporter"


Outcome = Event[UsageReported] | Event[UsageRejected] | Event[UsageRejectedLater]
"""What is published of a report."""


class UnexpectedAnswerError(Exception):
    """Stripe answered what only a mistake of ours or of the set-up explains."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call was made: the response to its answer, the row after it, and ``text`` for people."""

    response: Response
    at: datetime
    entry: Entry
    text: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a delivery ends with.

    ``outcome`` is its name in the metrics. ``event`` is published before the message is settled;
    then ``error`` is raised, or the message is done. ``counted_after`` is the age of the report in
    seconds when Stripe counted it, if this delivery's call was counted.
    """

    outcome: str
    event: Outcome | None = None
    error: Exception | None = None
    counted_after: float | None = None


def conclude(  # noqa: C901, PLR0911 - one for each result
    report: Report, result: Answered | NoCall, *, circuit: Cause | None, now: datetime
) -> Conclusion:
    """Decide what the delivery of ``report`` ends with; ``circuit`` is why the circuit is open."""
    match result:
        case Answered(Response(next=Next.REPORT), at, entry):
            event = reported(report, at=at, ever_unknown=entry.ever_unknown)
            delay = (at - report.facts.occurred_at).total_seconds()
            return Conclusion("reported", event, counted_after=delay)
        case AlreadyCounted(at, ever_unknown):
            event = reported(report, at=at, ever_unknown=ever_unknown)
            return Conclusion("reported_again", event)
        case RejectedLater(code, at):
            later = rejected_later(report.facts.report_id, report.identifier, code, at)
            return Conclusion("rejected_later", later)
        case Answered(Response(reason=Reason() as reason), _, entry, text):
            return _refused(report, reason, entry, text, now)
        case TooOld(before):
            text = "occurred_at: older than 35 days, not sent"
            return _refused(report, Reason.TIMESTAMP_TOO_OLD, before, text, now)
        case RefusedByHand(entry):
            reason = Reason(entry.reason or Reason.REFUSED_BY_STRIPE)
            return Conclusion("rejected", rejected(report, reason, entry, now))
        case Answered(response, _, _, text):
            return Conclusion("waiting", error=_wait(response, text, circuit))
        case CallInProgress():
            error = TransientError("another copy is being sent", tier=TIERS[0])
            return Conclusion("deferred", error=error)
        case Fenced(since):
            return _unknown(report, since)
        case IdentifierReused():
            text = "identifier: the journal has it for another report"
            return Conclusion("taken", error=PermanentError(Reason.EVENT_ID_TAKEN, text))


def _refused(
    report: Report, reason: Reason, entry: Entry | None, text: str, now: datetime
) -> Conclusion:
    """Dead-letter the message and publish the refusal, unless an earlier call may be counted."""
    if entry is not None and entry.first_unknown_at is not None:
        return _unknown(report, entry.first_unknown_at, f"{text}; ")
    error = PermanentError(reason, text, subject=report.facts.stripe_customer_id)
    return Conclusion("rejected", rejected(report, reason, entry, now), error)


def _unknown(report: Report, since: datetime, prefix: str = "") -> Conclusion:
    """Dead-letter a report that may have been counted: a person has to look at Stripe."""
    text = f"{prefix}unknown since {since.isoformat(timespec='seconds')} whether Stripe has it"
    subject = report.facts.stripe_customer_id
    return Conclusion("fenced", error=PermanentError(Reason.OUTCOME_UNKNOWN, text, subject=subject))


def _wait(response: Response, text: str, circuit: Cause | None) -> Exception:
    """Return what has the message retried, or handed back while the circuit is open."""
    if response.opens is not None and circuit is not None:
        return CircuitOpenError(circuit.value)
    if response.next is Next.SPEND_BUDGET:
        return UnexpectedAnswerError(response.name)
    return TransientError(text, tier=TIERS[-1] if response.next is Next.WAIT_LONGEST else None)


def reported(report: Report, *, at: datetime, ever_unknown: bool) -> Event[UsageReported]:
    """Return the event that says Stripe has counted the report; repeated, it is the same event."""
    data = UsageReported(
        report_id=report.facts.report_id,
        identifier=report.identifier,
        at=at,
        ever_unknown=ever_unknown,
    )
    id_ = uuid5(report.facts.report_id, UsageReported.TYPE)
    return Event.of(data, source=SOURCE, id=id_, time=at)


def rejected(
    report: Report, reason: Reason, entry: Entry | None, at: datetime
) -> Event[UsageRejected]:
    """Return the event that says the report was refused, for good unless an operator moves it.

    The row's number of attempts makes a later refusal, after such a move, another event.
    """
    data = UsageRejected(
        report_id=report.facts.report_id,
        identifier=report.identifier,
        at=at,
        reason=reason.value,
        ever_unknown=entry is not None and entry.ever_unknown,
    )
    attempts = 0 if entry is None else entry.attempts
    id_ = uuid5(report.facts.report_id, f"{UsageRejected.TYPE}:{reason.value}:{attempts}")
    return Event.of(data, source=SOURCE, id=id_, time=at)


def rejected_later(
    report_id: UUID, identifier: str, code: str, at: datetime
) -> Event[UsageRejectedLater]:
    """Return the event that says Stripe gave the report back; repeated, it is the same event."""
    data = UsageRejectedLater(report_id=report_id, identifier=identifier, at=at, code=code)
    return Event.of(data, source=SOURCE, id=uuid5(report_id, UsageRejectedLater.TYPE), time=at)


def not_fetched(answer: StripeAnswer) -> Exception:
    """Return what has a webhook's message retried or dead-lettered, since no event could be read.

    A gateway's answer says nothing of the event. What Stripe itself refuses, or writes in another
    form, ends as a dead letter: retried without end it would wait where nobody sees it.
    """
    text = describe(answer)
    if answer.receipt is Receipt.ANSWERED and answer.status == HTTPStatus.NOT_FOUND:
        return PermanentError(Reason.REFUSED_BY_STRIPE, text)
    other_form = answer.status == HTTPStatus.OK and answer.request_id is not None
    if other_form or response_to(answer).next is Next.REJECT:
        return UnexpectedAnswerError(text)
    return TransientError(text)
