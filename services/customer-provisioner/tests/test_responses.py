"""What each of Stripe's responses means for a user, whatever its text says."""

from dataclasses import replace

import pytest

from customer_provisioner.circuit import StripeKeyRefusedError
from customer_provisioner.stripe.responses import (
    TABLE,
    KeySpentError,
    NotFoundError,
    OtherModeError,
    response_of,
)
from nexus_messaging.errors import PermanentError, TransientError
from nexus_stripe.answers import Receipt, StripeAnswer


def answered(status: int, type_: str | None = None) -> StripeAnswer:
    """Return an answer that Stripe made."""
    return StripeAnswer(
        Receipt.ANSWERED,
        status=status,
        type=type_,
        code="email_invalid",
        param="email",
        request_id="req_1",
    )


def foreign(status: int) -> StripeAnswer:
    """Return an answer that a proxy or gateway made."""
    return StripeAnswer(Receipt.UNREADABLE, status=status)


@pytest.mark.parametrize(
    ("answer", "name", "expected"),
    [
        (StripeAnswer(Receipt.NEVER_SENT), "never_sent", TransientError),
        (StripeAnswer(Receipt.LOST), "lost", TransientError),
        *((foreign(status), "unreadable", TransientError) for status in (200, 302, 400, 401)),
        *((foreign(status), "unreadable", TransientError) for status in (403, 404, 407, 409, 500)),
        (answered(302), "unforeseen", TransientError),
        (answered(500), "server_error", KeySpentError),
        (answered(502), "unavailable", TransientError),
        (answered(409), "conflict", TransientError),
        (answered(409, "idempotency_error"), "conflict", TransientError),
        (answered(429), "locked", TransientError),
        (answered(401), "unauthorized", StripeKeyRefusedError),
        (answered(403), "forbidden", StripeKeyRefusedError),
        (answered(400, "idempotency_error"), "key_misused", KeySpentError),
        (answered(400), "refused", PermanentError),
        (answered(402), "refused", PermanentError),
        (answered(404), "not_found", NotFoundError),
        (replace(answered(404), other_mode=True), "other_mode", OtherModeError),
    ],
)
def test_each_answer_has_its_class_and_error(
    answer: StripeAnswer, name: str, expected: type[Exception]
) -> None:
    """Only an answer that Stripe made is a refusal, of a user or of the key."""
    kind, error = response_of(answer)

    assert (kind.name, type(error)) == (name, expected)


@pytest.mark.parametrize(("replayed", "name"), [(False, "accepted"), (True, "replayed")])
def test_a_success_has_no_error(*, replayed: bool, name: str) -> None:
    """Neither a first response nor one that Stripe repeats."""
    kind, error = response_of(StripeAnswer(Receipt.ANSWERED, status=200, replayed=replayed))

    assert (kind.name, error) == (name, None)


def test_a_key_that_may_get_another_answer_is_not_spent() -> None:
    """The library knows which answers Stripe keeps under a key; the errors agree with it."""
    for kind, make_error in TABLE.items():
        if kind.same_key:
            assert make_error is not None
            assert type(make_error("")) is TransientError


def test_a_refusal_names_status_code_and_parameter_only() -> None:
    """What an operator needs to find the cause, and no value."""
    _, error = response_of(answered(400))

    assert str(error) == "status 400, email_invalid, param email, req_1"
