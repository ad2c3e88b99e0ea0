"""What each answer of Stripe's means here, whatever its text says."""

from functools import partial
from typing import Any

import pytest
import stripe

from customer_provisioner.stripe_api import (
    KeySpentError,
    NotThereError,
    StripeKeyRefusedError,
    _meaning,
)
from nexus_messaging.errors import PermanentError, TransientError

QUOTED = "Invalid email address: ada@example.com"


def failure(
    kind: type[stripe.StripeError], status: int | None, *, body: bool = True
) -> stripe.StripeError:
    """Return an error as the SDK raises it for an answer with that status."""
    told = {"message": QUOTED, "type": "api_error", "code": "email_invalid", "param": "email"}
    error: Any = kind
    if kind is stripe.InvalidRequestError:
        error = partial(error, param="email")
    raised: stripe.StripeError = error(
        QUOTED,
        http_status=status,
        json_body={"error": told} if body else None,
        headers={"request-id": "req_1"},
    )
    return raised


@pytest.mark.parametrize(
    ("error", "answer", "expected"),
    [
        (failure(stripe.APIConnectionError, None, body=False), "unknown", TransientError),
        (failure(stripe.APIError, 200, body=False), "unknown", TransientError),
        (failure(stripe.APIError, 500, body=False), "unknown", TransientError),
        (failure(stripe.APIError, 500), "key_spent", KeySpentError),
        (failure(stripe.APIError, 502), "unknown", TransientError),
        (failure(stripe.APIError, 503, body=False), "unknown", TransientError),
        (failure(stripe.APIError, 409), "busy", TransientError),
        (failure(stripe.RateLimitError, 429), "throttled", TransientError),
        (failure(stripe.AuthenticationError, 401), "key_refused", StripeKeyRefusedError),
        (failure(stripe.PermissionError, 403), "key_refused", StripeKeyRefusedError),
        (failure(stripe.IdempotencyError, 400), "key_spent", KeySpentError),
        (failure(stripe.InvalidRequestError, 400), "refused", PermanentError),
        (failure(stripe.APIError, 402), "refused", PermanentError),
        (failure(stripe.InvalidRequestError, 404), "refused", NotThereError),
    ],
)
def test_an_answer_has_one_meaning(
    error: stripe.StripeError, answer: str, expected: type[Exception]
) -> None:
    """A 500 with Stripe's own body is kept under the key; one from before it is not."""
    named, meaning = _meaning(error)

    assert (named, type(meaning)) == (answer, expected)
    assert "ada@example.com" not in str(meaning)


def test_a_refusal_names_status_code_parameter_and_nothing_else() -> None:
    """What a person needs to find the cause, and no value."""
    _, meaning = _meaning(failure(stripe.InvalidRequestError, 400))

    assert str(meaning) == "InvalidRequestError, status 400, email_invalid, param email, req_1"
