"""What came back from a call to Stripe, free of values: what the table of meanings is asked."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Receipt(StrEnum):
    """What came back from a call."""

    ANSWERED = "answered"
    """An answer of Stripe's own."""
    UNREADABLE = "unreadable"
    """An answer that is not Stripe's JSON: something in between spoke."""
    LOST = "lost"
    """No answer: timeout, or the connection broke."""
    NEVER_SENT = "never_sent"
    """No connection could be made, so nothing was sent."""


class Wording(StrEnum):
    """What a refusal's message says where no code does; the message itself holds values."""

    DUPLICATE = "duplicate identifier"
    NO_CUSTOMER = "no such customer"
    NO_METER = "no active meter"
    TOO_OLD = "older than 35 days"
    IN_FUTURE = "in the future"


# The v1 API gives meter events' refusals no code: only the message tells them apart. These are the
# messages the live API was seen to answer with.
_WORDINGS: Final = (
    ("an event already exists with identifier", Wording.DUPLICATE),
    ("no such customer", Wording.NO_CUSTOMER),
    ("no active meter found", Wording.NO_METER),
    ("35 days in", Wording.TOO_OLD),
    ("in the future", Wording.IN_FUTURE),
)

_CODES: Final = {
    "duplicate_meter_event": Wording.DUPLICATE,
    "meter_event_customer_not_found": Wording.NO_CUSTOMER,
    "no_meter": Wording.NO_METER,
    "archived_meter": Wording.NO_METER,
    "timestamp_too_far_in_past": Wording.TOO_OLD,
    "timestamp_in_future": Wording.IN_FUTURE,
}


def recognise(message: str | None, code: str | None) -> Wording | None:
    """Tell what a refusal is about: by its code where there is one, else by its message."""
    if code in _CODES:
        return _CODES[code]
    lowered = (message or "").lower()
    return next((wording for part, wording in _WORDINGS if part in lowered), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a call afterwards, free of values.

    ``param`` is the path of the field that a refusal is about.
    ``should_retry`` and ``limited_by`` are the headers ``Stripe-Should-Retry`` and
    ``Stripe-Rate-Limited-Reason``; ``date`` is Stripe's clock in unix seconds.
    """

    receipt: Receipt
    status: int | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None
    wording: Wording | None = None
    should_retry: bool | None = None
    limited_by: str | None = None
    date: float | None = None
