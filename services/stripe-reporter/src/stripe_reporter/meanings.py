"""What each answer of Stripe means for a report: one table, read from the top.

Pure data and its lookup. The sources are Stripe's error reference
(https://docs.stripe.com/api/errors), its pages on idempotent requests and rate limits, and, for
the refusals of meter events, what the live API was seen to answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nexus_messaging.reasons import Reason
from nexus_stripe.answers import Answer, Receipt, Wording


class Effect(StrEnum):
    """Whether the call was counted."""

    COUNTED = "counted"
    NOT_COUNTED = "not counted"
    UNKNOWN = "unknown"


class Then(StrEnum):
    """What follows for the report. Only ``TRY_FEW`` spends its budget."""

    REPORT = "`usage.reported`"
    REJECT = "`usage.rejected`, dead letter"
    WAIT_HERE = "again shortly, then waits"
    WAIT = "waits, longer each time"
    WAIT_LONGEST = "waits in the last tier"
    TRY_FEW = "again until its budget is spent"


class Cause(StrEnum):
    """What closes the gate: no report can be sent while it lasts."""

    AUTH = "auth"
    OUTAGE = "outage"
    METER = "meter"


@dataclass(frozen=True, slots=True)
class Signal:
    """Which answers a row is for; what is absent does not matter. ``statuses`` are inclusive."""

    says: str
    receipt: Receipt = Receipt.ANSWERED
    statuses: tuple[int, int] | None = None
    wording: Wording | None = None
    type: str | None = None
    limited: bool | None = None

    def fits(self, answer: Answer) -> bool:
        """Whether the row is for ``answer``."""
        return (
            answer.receipt is self.receipt
            and (self.statuses is None or _within(answer.status, self.statuses))
            and self.wording in (None, answer.wording)
            and self.type in (None, answer.type)
            and self.limited in (None, answer.limited_by is not None)
        )


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row of the table: what an answer means.

    ``same_key``: the next call goes under the same idempotency key, to be given this call's answer
    if there is one. ``closes`` names the cause of closing the gate that the answer is a sign of.
    ``slows``: we call too fast.
    """

    name: str
    signal: Signal
    effect: Effect
    then: Then
    same_key: bool = False
    reason: Reason | None = None
    closes: Cause | None = None
    slows: bool = False


_REFUSAL: Final = (400, 404)

TABLE: Final = (
    Meaning("accepted", Signal("2xx", statuses=(200, 299)), Effect.COUNTED, Then.REPORT),
    Meaning(
        "duplicate",
        Signal("400, the identifier exists", statuses=_REFUSAL, wording=Wording.DUPLICATE),
        Effect.COUNTED,
        Then.REPORT,
    ),
    Meaning(
        "never_sent",
        Signal(
            "nothing was sent, as without a connection",
            receipt=Receipt.NEVER_SENT,
        ),
        Effect.NOT_COUNTED,
        Then.WAIT,
        same_key=True,
        closes=Cause.OUTAGE,
    ),
    Meaning(
        "lost",
        Signal("timeout, connection lost", receipt=Receipt.LOST),
        Effect.UNKNOWN,
        Then.WAIT,
        same_key=True,
        closes=Cause.OUTAGE,
    ),
    Meaning(
        "unreadable",
        Signal(
            "an answer not of Stripe's making",
            receipt=Receipt.UNREADABLE,
        ),
        Effect.UNKNOWN,
        Then.WAIT,
        same_key=True,
        closes=Cause.OUTAGE,
    ),
    Meaning(
        # Kept under its key: under the same one it would be all we ever hear.
        "server_error",
        Signal("500", statuses=(500, 500)),
        Effect.UNKNOWN,
        Then.WAIT,
        closes=Cause.OUTAGE,
    ),
    Meaning(
        "unavailable",
        Signal("501 to 599", statuses=(501, 599)),
        Effect.UNKNOWN,
        Then.WAIT,
        same_key=True,
        closes=Cause.OUTAGE,
    ),
    Meaning(
        "unauthorized",
        Signal("401", statuses=(401, 401)),
        Effect.NOT_COUNTED,
        Then.WAIT,
        closes=Cause.AUTH,
    ),
    Meaning(
        "forbidden",
        Signal("403", statuses=(403, 403)),
        Effect.NOT_COUNTED,
        Then.WAIT,
        closes=Cause.AUTH,
    ),
    Meaning(
        "conflict",
        Signal("409: the customer's previous call is under way", statuses=(409, 409)),
        Effect.NOT_COUNTED,
        Then.WAIT_HERE,
        same_key=True,
    ),
    Meaning(
        "rate_limited",
        Signal("429 with `Stripe-Rate-Limited-Reason`", statuses=(429, 429), limited=True),
        Effect.NOT_COUNTED,
        Then.WAIT_HERE,
        same_key=True,
        slows=True,
    ),
    Meaning(
        "locked",
        Signal("429 without it (`lock_timeout`)", statuses=(429, 429)),
        Effect.NOT_COUNTED,
        Then.WAIT_HERE,
        same_key=True,
    ),
    Meaning(
        "key_misused",
        Signal("`idempotency_error`: our bug", statuses=_REFUSAL, type="idempotency_error"),
        Effect.NOT_COUNTED,
        Then.TRY_FEW,
    ),
    Meaning(
        "no_such_customer",
        Signal("400, no such customer", statuses=_REFUSAL, wording=Wording.NO_CUSTOMER),
        Effect.NOT_COUNTED,
        Then.REJECT,
        reason=Reason.NO_SUCH_CUSTOMER,
    ),
    Meaning(
        "no_meter",
        Signal("400, no active meter", statuses=_REFUSAL, wording=Wording.NO_METER),
        Effect.NOT_COUNTED,
        Then.WAIT_LONGEST,
        closes=Cause.METER,
    ),
    Meaning(
        "too_old",
        Signal("400, older than 35 days", statuses=_REFUSAL, wording=Wording.TOO_OLD),
        Effect.NOT_COUNTED,
        Then.REJECT,
        reason=Reason.TIMESTAMP_TOO_OLD,
    ),
    Meaning(
        # Time alone makes it right.
        "in_future",
        Signal("400, more than 5 minutes ahead", statuses=_REFUSAL, wording=Wording.IN_FUTURE),
        Effect.NOT_COUNTED,
        Then.WAIT,
    ),
    Meaning(
        # A wrong STRIPE_API_BASE would otherwise turn every report into a dead letter at once.
        "no_endpoint",
        Signal("404 otherwise", statuses=(404, 404)),
        Effect.NOT_COUNTED,
        Then.TRY_FEW,
    ),
    Meaning(
        "refused",
        Signal("any other 4xx, such as a bad value", statuses=(400, 499)),
        Effect.NOT_COUNTED,
        Then.REJECT,
        reason=Reason.REFUSED_BY_STRIPE,
    ),
    Meaning("unforeseen", Signal("anything else"), Effect.UNKNOWN, Then.WAIT, closes=Cause.OUTAGE),
)
"""Every answer fits a row; the first that fits counts."""


def meaning_of(answer: Answer) -> Meaning:
    """Return what ``answer`` means.

    ``Stripe-Should-Retry: false`` says that the same key will never get another answer
    (https://docs.stripe.com/error-low-level), so the next call takes a new one.
    """
    meaning = next(row for row in TABLE if row.signal.fits(answer))
    return replace(meaning, same_key=False) if answer.should_retry is False else meaning


def told(answer: Answer) -> str:
    """Return for people what came back: no values, only names for kinds of faults."""
    says = f"Stripe: {meaning_of(answer).signal.says}"
    foreign = answer.status if answer.receipt is Receipt.UNREADABLE else None
    parts = (foreign and f"status {foreign}", answer.code, answer.param, answer.cause)
    detail = ", ".join(part for part in parts if part)
    return f"{says} ({detail})" if detail else says


def markdown() -> Iterator[str]:
    """Yield the lines of the table for people to read."""
    yield "| Stripe answers | counted? | what follows | key of the next call | gate |"
    yield "|---|---|---|---|---|"
    for row in TABLE:
        then = f"{row.then} `{row.reason.value}`" if row.reason else row.then.value
        key = "" if row.then in (Then.REPORT, Then.REJECT) else "same" if row.same_key else "new"
        gate = f"`{row.closes.value}`" if row.closes else "slows down" if row.slows else ""
        yield f"| {row.signal.says} | {row.effect} | {then} | {key} | {gate} |"


def _within(status: int | None, statuses: tuple[int, int]) -> bool:
    return status is not None and statuses[0] <= status <= statuses[1]
