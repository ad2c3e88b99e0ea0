"""What each answer of Stripe's means here, whatever its text says."""

import pytest

from customer_provisioner.stripe_api import (
    KeySpentError,
    NotThereError,
    StripeKeyRefusedError,
    meaning_of,
)
from nexus_messaging.errors import PermanentError, TransientError
from nexus_stripe.answers import Answer, Receipt


def answered(status: int, type_: str | None = None) -> Answer:
    """Return an answer of Stripe's own."""
    return Answer(
        Receipt.ANSWERED,
        status=status,
        type=type_,
        code="email_invalid",
        param="email",
        request_id="req_1",
    )


def foreign(status: int) -> Answer:
    """Return an answer that something between here and Stripe made."""
    return Answer(Receipt.UNREADABLE, status=status)


@pytest.mark.parametrize(
    ("answer", "name", "expected"),
    [
        (Answer(Receipt.NEVER_SENT), "never_sent", TransientError),
        (Answer(Receipt.LOST), "lost", TransientError),
        *((foreign(status), "unreadable", TransientError) for status in (200, 302, 400, 401)),
        *((foreign(status), "unreadable", TransientError) for status in (403, 404, 407, 409, 500)),
        (answered(302), "unknown", TransientError),
        (answered(500), "key_spent", KeySpentError),
        (answered(502), "unknown", TransientError),
        (answered(409), "busy", TransientError),
        (answered(409, "idempotency_error"), "busy", TransientError),
        (answered(429), "throttled", TransientError),
        (answered(401), "key_refused", StripeKeyRefusedError),
        (answered(403), "key_refused", StripeKeyRefusedError),
        (answered(400, "idempotency_error"), "key_spent", KeySpentError),
        (answered(400), "refused", PermanentError),
        (answered(402), "refused", PermanentError),
        (answered(404), "refused", NotThereError),
    ],
)
def test_an_answer_has_one_meaning(answer: Answer, name: str, expected: type[Exception]) -> None:
    """Only what Stripe itself says is ever a refusal, of a user or of the key."""
    named, error = meaning_of(answer)

    assert (named, type(error)) == (name, expected)


def test_a_success_has_no_error() -> None:
    """Whether it is a first answer or one that Stripe had kept."""
    assert meaning_of(Answer(Receipt.ANSWERED, status=200)) == ("ok", None)
    assert meaning_of(Answer(Receipt.ANSWERED, status=200, replayed=True)) == ("replayed", None)


def test_a_refusal_names_status_code_parameter_and_nothing_else() -> None:
    """What a person needs to find the cause, and no value."""
    _, error = meaning_of(answered(400))

    assert str(error) == "status 400, email_invalid, param email, req_1"
