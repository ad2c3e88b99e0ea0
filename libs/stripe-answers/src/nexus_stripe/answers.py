"""What is known about a call to Stripe afterwards: values without any text of the answer."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Receipt(StrEnum):
    """What came back from a call."""

    ANSWERED = "answered"
    """An answer that Stripe made."""
    UNREADABLE = "unreadable"
    """An answer that Stripe did not make, or not the kind of object that was requested."""
    LOST = "lost"
    """No answer: timeout, or the connection broke after the request was written."""
    NEVER_SENT = "never_sent"
    """Nothing of the request was written, so it can't have had an effect."""


class Wording(StrEnum):
    """What a refusal is about. The message itself is not kept, because it holds values."""

    DUPLICATE = "duplicate identifier"
    NO_CUSTOMER = "no such customer"
    NO_METER = "no active meter"
    TOO_OLD = "older than 35 days"
    IN_FUTURE = "in the future"


# The v1 API refuses meter events without a code: only the message tells the refusals apart. These
# messages were observed from the live API.
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
    """Return what a refusal is about: by its code if it is a known one, else by its message."""
    if code in _CODES:
        return _CODES[code]
    lowered = (message or "").lower()
    return next((wording for part, wording in _WORDINGS if part in lowered), None)


def names_other_mode(message: str | None) -> bool:
    """Return whether a refusal says that the object exists in the other mode, live or test.

    It has no code of its own: "No such customer: 'cus_…'; a similar object exists in live mode, but
    a test mode key was used to make this request."
    """
    return "a similar object exists in" in (message or "")


@dataclass(frozen=True, slots=True)
class StripeAnswer:
    """What is known about a call afterwards, without any values.

    Attributes:
        receipt: What came back.
        status: The HTTP status, where there was one.
        type: Stripe's type of the error.
        code: Stripe's code of the error.
        param: The path of the field that a refusal is about.
        wording: What a refusal is about.
        other_mode: Whether the object exists in the other mode, live or test, alone.
        should_retry: The header ``Stripe-Should-Retry``.
        limited_by: The header ``Stripe-Rate-Limited-Reason``.
        replayed: Whether Stripe repeated an answer that it keeps under the idempotency key.
        request_id: Stripe's id of the request.
        date: Stripe's clock, in Unix seconds.
        cause: The class of the error that was raised instead of an answer.
    """

    receipt: Receipt
    status: int | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None
    wording: Wording | None = None
    other_mode: bool = False
    should_retry: bool | None = None
    limited_by: str | None = None
    replayed: bool = False
    request_id: str | None = None
    date: float | None = None
    cause: str | None = None

    @property
    def success(self) -> bool:
        """Whether Stripe carried out the request."""
        return self.receipt is Receipt.ANSWERED and _is_success(self.status)

    def describe(self) -> str:
        """Return the answer in words, without values: status, code, parameter, cause, request."""
        parts = (
            self.status and f"status {self.status}",
            self.code or self.type,
            self.param and f"param {self.param}",
            self.cause,
            self.request_id,
        )
        return ", ".join(str(part) for part in parts if part)


def _is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300  # noqa: PLR2004 - HTTP's successes
