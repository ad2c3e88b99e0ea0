"""What follows for a report from each class of Stripe's answers: one table, read from the top.

Pure data and its lookup. The classes that calls of any kind share are in
`nexus_stripe.answer_classes`; those that only meter events have are here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nexus_messaging.reasons import Reason
from nexus_stripe.answer_classes import (
    ACCEPTED,
    CONFLICT,
    FORBIDDEN,
    KEY_MISUSED,
    LOCKED,
    LOST,
    NEVER_SENT,
    RATE_LIMITED,
    REFUSAL_STATUSES,
    REFUSED,
    SERVER_ERROR,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNFORESEEN,
    UNREADABLE,
    AnswerClass,
    Effect,
)
from nexus_stripe.answers import Receipt, StripeAnswer, Wording
from stripe_reporter.circuit import Cause


class Next(StrEnum):
    """What follows for the report. Only ``SPEND_BUDGET`` spends its message's retry budget."""

    REPORT = "`usage.reported`"
    REJECT = "`usage.rejected`, dead letter"
    RETRY_HERE = "again shortly, then waits"
    WAIT = "waits, longer each time"
    WAIT_LONGEST = "waits in the last tier"
    SPEND_BUDGET = "again until its budget is spent"


@dataclass(frozen=True, slots=True)
class Response:
    """A row of the table: how the reporter responds to a class of answers.

    ``reason`` is why the report is rejected. ``opens`` names the cause of opening the circuit that
    such an answer is a sign of. ``slows_down``: the calls are too fast.
    """

    to: AnswerClass
    next: Next
    reason: Reason | None = None
    opens: Cause | None = None
    slows_down: bool = False

    @property
    def name(self) -> str:
        """The name of the class in metrics, in spans and in the journal."""
        return self.to.name

    @property
    def effect(self) -> Effect:
        """Whether Stripe has counted the report."""
        return self.to.effect

    @property
    def same_key(self) -> bool:
        """Whether the next call has the same idempotency key, so that Stripe repeats its answer."""
        return self.to.same_key


def _refusal(name: str, text: str, wording: Wording, effect: Effect) -> AnswerClass:
    return AnswerClass(name, text, effect, statuses=REFUSAL_STATUSES, wording=wording)


DUPLICATE: Final = _refusal(
    "duplicate", "400, the identifier exists", Wording.DUPLICATE, Effect.APPLIED
)
NO_CUSTOMER: Final = _refusal(
    "no_such_customer", "400, no such customer", Wording.NO_CUSTOMER, Effect.NOT_APPLIED
)
NO_METER: Final = _refusal("no_meter", "400, no active meter", Wording.NO_METER, Effect.NOT_APPLIED)
TOO_OLD: Final = _refusal("too_old", "400, older than 35 days", Wording.TOO_OLD, Effect.NOT_APPLIED)
# Nothing but time mends it.
IN_FUTURE: Final = _refusal(
    "in_future", "400, more than 5 minutes ahead", Wording.IN_FUTURE, Effect.NOT_APPLIED
)
# Otherwise a wrong STRIPE_API_BASE would dead-letter every report at its first delivery.
NO_ENDPOINT: Final = AnswerClass(
    "no_endpoint", "404 otherwise", Effect.NOT_APPLIED, statuses=(404, 404)
)

TABLE: Final = (
    Response(ACCEPTED, Next.REPORT),
    Response(DUPLICATE, Next.REPORT),
    Response(NEVER_SENT, Next.WAIT, opens=Cause.OUTAGE),
    Response(LOST, Next.WAIT, opens=Cause.OUTAGE),
    Response(UNREADABLE, Next.WAIT, opens=Cause.OUTAGE),
    Response(SERVER_ERROR, Next.WAIT, opens=Cause.OUTAGE),
    Response(UNAVAILABLE, Next.WAIT, opens=Cause.OUTAGE),
    Response(UNAUTHORIZED, Next.WAIT, opens=Cause.KEY),
    Response(FORBIDDEN, Next.WAIT, opens=Cause.KEY),
    Response(CONFLICT, Next.RETRY_HERE),
    Response(RATE_LIMITED, Next.RETRY_HERE, slows_down=True),
    Response(LOCKED, Next.RETRY_HERE),
    Response(KEY_MISUSED, Next.SPEND_BUDGET),
    Response(NO_CUSTOMER, Next.REJECT, Reason.NO_SUCH_CUSTOMER),
    Response(NO_METER, Next.WAIT_LONGEST, opens=Cause.METER),
    Response(TOO_OLD, Next.REJECT, Reason.TIMESTAMP_TOO_OLD),
    Response(IN_FUTURE, Next.WAIT),
    Response(NO_ENDPOINT, Next.SPEND_BUDGET),
    Response(REFUSED, Next.REJECT, Reason.REFUSED_BY_STRIPE),
    Response(UNFORESEEN, Next.WAIT, opens=Cause.OUTAGE),
)
"""Every answer matches a row; the first one counts.

To add an error of Stripe's: add its class and its row here, above the rows that would match it too;
add how Stripe is made to answer so to `tests/integration/stripe_reporter/recipes.py`, whose test
fails without it; run `make docs`.
"""


def response_to(answer: StripeAnswer) -> Response:
    """Return the row for ``answer``.

    ``Stripe-Should-Retry: false`` says that the same key will never get another answer
    (https://docs.stripe.com/error-low-level), so the next call takes a new one.
    """
    response = next(row for row in TABLE if row.to.matches(answer))
    if answer.should_retry is False:
        return replace(response, to=replace(response.to, same_key=False))
    return response


def describe(answer: StripeAnswer) -> str:
    """Return for people what came back: no values, only names for kinds of faults."""
    text = f"Stripe: {response_to(answer).to.text}"
    foreign = answer.status if answer.receipt is Receipt.UNREADABLE else None
    parts = (foreign and f"status {foreign}", answer.code, answer.param, answer.cause)
    detail = ", ".join(part for part in parts if part)
    return f"{text} ({detail})" if detail else text


def markdown() -> Iterator[str]:
    """Yield the lines of the table for people to read."""
    yield "| Stripe answers | counted? | what follows | key of the next call | circuit breaker |"
    yield "|---|---|---|---|---|"
    for row in TABLE:
        follows = f"{row.next} `{row.reason.value}`" if row.reason else row.next.value
        key = "" if row.next in (Next.REPORT, Next.REJECT) else "same" if row.same_key else "new"
        circuit = f"`{row.opens.value}`" if row.opens else "slows down" if row.slows_down else ""
        yield f"| {row.to.text} | {row.effect} | {follows} | {key} | {circuit} |"
