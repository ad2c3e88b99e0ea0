"""Classes of Stripe's answers: what holds for each of them, whichever service made the call.

What *follows* from a class is the business of each service: its own table maps these classes, and
those that only it has, to what it does next.

Sources: https://docs.stripe.com/api/errors, https://docs.stripe.com/error-low-level,
https://docs.stripe.com/api/idempotent_requests, https://docs.stripe.com/rate-limits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nexus_stripe.answers import Receipt, StripeAnswer, Wording


class Effect(StrEnum):
    """Whether the call had its effect at Stripe."""

    APPLIED = "yes"
    NOT_APPLIED = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """A class of answers. The attributes from ``receipt`` on select them; None selects any.

    Attributes:
        name: Its name in metrics, spans and tables.
        text: What the answer was, in words.
        effect: Whether the call had its effect.
        same_key: Whether the same request under the same idempotency key may get another answer.
        outage: Whether it is a sign that Stripe can't be reached or does not work.
        receipt: What came back.
        statuses: The first and the last HTTP status.
        type: Stripe's type of the error.
        code: Stripe's code of the error.
        wording: What a refusal is about, where the v1 API gives no code.
        other_mode: Whether the object exists in the other mode alone.
        limited: Whether the answer names the rate limit that was exceeded.
        replayed: Whether Stripe repeated an answer that it keeps under the idempotency key.
    """

    name: str
    text: str
    effect: Effect
    same_key: bool = False
    outage: bool = False
    receipt: Receipt = Receipt.ANSWERED
    statuses: tuple[int, int] | None = None
    type: str | None = None
    code: str | None = None
    wording: Wording | None = None
    other_mode: bool | None = None
    limited: bool | None = None
    replayed: bool | None = None

    def matches(self, answer: StripeAnswer) -> bool:
        """Return whether ``answer`` is of this class."""
        return (
            answer.receipt is self.receipt
            and (self.statuses is None or _within(answer.status, self.statuses))
            and self.type in (None, answer.type)
            and self.code in (None, answer.code)
            and self.wording in (None, answer.wording)
            and self.other_mode in (None, answer.other_mode)
            and self.limited in (None, answer.limited_by is not None)
            and self.replayed in (None, answer.replayed)
        )


def classify(answer: StripeAnswer, classes: Iterable[AnswerClass]) -> AnswerClass:
    """Return the first of ``classes`` that matches ``answer``; ``UNFORESEEN`` ends every list."""
    return next(each for each in classes if each.matches(answer))


REFUSAL_STATUSES: Final = (400, 404)
"""The first and last status of a refusal whose code or message names the fault."""

ACCEPTED: Final = AnswerClass("accepted", "2xx", Effect.APPLIED, statuses=(200, 299))

NEVER_SENT: Final = AnswerClass(
    "never_sent",
    "nothing was sent, as without a connection",
    Effect.NOT_APPLIED,
    same_key=True,
    outage=True,
    receipt=Receipt.NEVER_SENT,
)

LOST: Final = AnswerClass(
    "lost",
    "timeout, connection lost",
    Effect.UNKNOWN,
    same_key=True,
    outage=True,
    receipt=Receipt.LOST,
)

UNREADABLE: Final = AnswerClass(
    "unreadable",
    "an answer that Stripe did not make",
    Effect.UNKNOWN,
    same_key=True,
    outage=True,
    receipt=Receipt.UNREADABLE,
)

# Stripe keeps a 500 under the idempotency key and repeats it, whether or not the call had its
# effect.
SERVER_ERROR: Final = AnswerClass(
    "server_error", "500", Effect.UNKNOWN, outage=True, statuses=(500, 500)
)

UNAVAILABLE: Final = AnswerClass(
    "unavailable",
    "501 to 599",
    Effect.UNKNOWN,
    same_key=True,
    outage=True,
    statuses=(501, 599),
)

UNAUTHORIZED: Final = AnswerClass("unauthorized", "401", Effect.NOT_APPLIED, statuses=(401, 401))

FORBIDDEN: Final = AnswerClass("forbidden", "403", Effect.NOT_APPLIED, statuses=(403, 403))

CONFLICT: Final = AnswerClass(
    "conflict",
    "409: a request for the same object or under the same idempotency key is in progress",
    Effect.NOT_APPLIED,
    same_key=True,
    statuses=(409, 409),
)

RATE_LIMITED: Final = AnswerClass(
    "rate_limited",
    "429 with `Stripe-Rate-Limited-Reason`",
    Effect.NOT_APPLIED,
    same_key=True,
    statuses=(429, 429),
    limited=True,
)

LOCKED: Final = AnswerClass(
    "locked",
    "429 without it (`lock_timeout`)",
    Effect.NOT_APPLIED,
    same_key=True,
    statuses=(429, 429),
)

KEY_MISUSED: Final = AnswerClass(
    "key_misused",
    "`idempotency_error`: the idempotency key was used with other parameters",
    Effect.NOT_APPLIED,
    statuses=REFUSAL_STATUSES,
    type="idempotency_error",
)

REFUSED: Final = AnswerClass(
    "refused", "any other 4xx, such as a bad value", Effect.NOT_APPLIED, statuses=(400, 499)
)

UNFORESEEN: Final = AnswerClass("unforeseen", "anything else", Effect.UNKNOWN)


def _within(status: int | None, statuses: tuple[int, int]) -> bool:
    return status is not None and statuses[0] <= status <= statuses[1]
