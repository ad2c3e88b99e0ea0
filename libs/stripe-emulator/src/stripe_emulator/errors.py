"""The errors of the API: status, type, code, message, parameter and headers of each.

Messages are Stripe's where they are known from its documentation or from reports of its users. The
README says which are only likely.
"""

from collections.abc import Mapping
from typing import Any

_DOCS = "https://stripe.com/docs"
_SHOULD_RETRY = "Stripe-Should-Retry"
_MASKED_ENDS = (8, 4)


class StripeError(Exception):
    """One error, with the API's message.

    Attributes:
        status: HTTP status.
        error: The ``error`` object of the answer's body.
        headers: Headers that this error adds to the answer.
        saved: Whether the answer is kept under the request's idempotency key. Stripe keeps the
            answers of endpoints that began to execute (400s and 500s), and none of refusals before
            that (parameters that fail validation, 401, 409, 429).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        saved: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.saved = saved
        self.error: dict[str, Any] = {"message": message, "type": type_}
        if code is not None:
            self.error["code"] = code
            self.error["doc_url"] = f"{_DOCS}/error-codes/{code.replace('_', '-')}"
        if param is not None:
            self.error["param"] = param

    @property
    def code(self) -> str | None:
        """Return the error's ``code``, if it has one."""
        return self.error.get("code")

    @property
    def body(self) -> dict[str, Any]:
        """Return the whole JSON body of the answer."""
        return {"error": self.error}


def masked(key: str) -> str:
    """Hide the middle of an API key, as the API does in its messages."""
    head, tail = _MASKED_ENDS
    if len(key) <= head + tail:
        return "*" * len(key)
    return key[:head] + "*" * (len(key) - head - tail) + key[-tail:]


def missing_key() -> StripeError:
    """No ``Authorization`` header."""
    return StripeError(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization "
        "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
        f"{_DOCS}/api#authentication for details.",
        headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
    )


def invalid_key(key: str) -> StripeError:
    """A key that this account never had."""
    return StripeError(
        401,
        f"Invalid API Key provided: {masked(key)}",
        headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
    )


def expired_key(key: str) -> StripeError:
    """A key that was revoked."""
    return StripeError(
        401,
        f"Expired API Key provided: {masked(key)}",
        code="api_key_expired",
        headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
    )


def permission_denied(key: str, permission: str) -> StripeError:
    """A restricted key without the permission that the endpoint needs."""
    return StripeError(
        403,
        f"The provided key '{masked(key)}' does not have the required permissions for this "
        f"endpoint on account 'acct_emulator'. Having the '{permission}' permission would allow "
        "this request to continue.",
    )


def unrecognized_url(method: str, path: str) -> StripeError:
    """No endpoint at this address."""
    return StripeError(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see {_DOCS} or we can help at "
        "https://support.stripe.com/.",
    )


def wrong_content_type() -> StripeError:
    """A v1 body that is not form-encoded."""
    return StripeError(
        400,
        "Invalid request (check that your POST content type is application/x-www-form-urlencoded). "
        "If you have questions, we can help at https://support.stripe.com/.",
    )


def not_utf8() -> StripeError:
    """A body that is not text."""
    return StripeError(400, "Invalid request: the body has to be encoded as UTF-8.")


def unknown_parameter(param: str) -> StripeError:
    """A parameter the endpoint does not have."""
    return StripeError(
        400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param
    )


def missing_parameter(param: str) -> StripeError:
    """A required parameter that is absent."""
    return StripeError(
        400, f"Missing required param: {param}.", code="parameter_missing", param=param
    )


def empty_parameter(param: str) -> StripeError:
    """An empty string for a parameter that cannot be unset."""
    return StripeError(
        400,
        f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset "
        f"a parameter; however '{param}' cannot be unset. You should remove '{param}' from your "
        "request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=param,
    )


def invalid_parameter(param: str, message: str, code: str | None = None) -> StripeError:
    """A parameter whose value has the wrong form."""
    return StripeError(400, message, code=code, param=param)


def no_such(noun: str, id_: str, param: str = "id", status: int = 404) -> StripeError:
    """An object that does not exist: 404 if the path names it, 400 if a parameter does."""
    return StripeError(
        status, f"No such {noun}: '{id_}'", code="resource_missing", param=param, saved=True
    )


def no_such_in_v2(noun: str, id_: str) -> StripeError:
    """An object that does not exist, as API v2 says it."""
    return StripeError(404, f"No such {noun}: '{id_}'", code="not_found")


def no_such_in_test_mode(noun: str, id_: str) -> StripeError:
    """An object that exists in live mode, requested by a key of the test mode."""
    return StripeError(
        404,
        f"No such {noun}: '{id_}'; a similar object exists in live mode, but a test mode key was "
        "used to make this request.",
        code="resource_missing",
        param="id",
        saved=True,
    )


def refused(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    """A well-formed request that breaks a rule of its endpoint."""
    return StripeError(400, message, code=code, param=param, saved=True)


def duplicate_event(identifier: str) -> StripeError:
    """A meter event whose identifier was accepted within the last 24 hours.

    Live v1 answers have no ``code`` here, only the message. (v2 has a code.)
    """
    return StripeError(
        400,
        f"An event already exists with identifier {identifier}.",
        headers={_SHOULD_RETRY: "false"},
        saved=True,
    )


def other_parameters(key: str) -> StripeError:
    """An idempotency key used again with other parameters."""
    return StripeError(
        400,
        "Keys for idempotent requests can only be used with the same parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different "
        "request.",
        type_="idempotency_error",
    )


def other_endpoint(key: str, first: str, now: str) -> StripeError:
    """An idempotency key used again at another endpoint."""
    return StripeError(
        400,
        "Keys for idempotent requests can only be used for the same endpoint they were first used "
        f"for ('{now}' vs '{first}'). Try using a key other than '{key}' if you meant to execute a "
        "different request.",
        type_="idempotency_error",
    )


def key_in_use(key: str) -> StripeError:
    """An idempotency key whose first request is still in flight."""
    return StripeError(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably "
        "means you submitted twice, and the other request is still going through): "
        f"{key}. Please try again later.",
        type_="idempotency_error",
        code="idempotency_key_in_use",
    )


def overlapping_calls() -> StripeError:
    """A meter event for a customer and meter whose previous event is still in flight."""
    return StripeError(
        409,
        "There is currently another in-progress meter event request for this customer and meter. "
        "Send the events of one customer and meter one after the other.",
    )


def rate_limited(reason: str) -> StripeError:
    """Too many requests; ``reason`` is what ``Stripe-Rate-Limited-Reason`` says."""
    return StripeError(
        429,
        f"Request rate limit exceeded. Learn more about rate limits here {_DOCS}/rate-limits.",
        code="rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason},
    )


def lock_timeout() -> StripeError:
    """A 429 that is about one object and carries no rate-limit reason."""
    return StripeError(
        429,
        "This object cannot be accessed right now because another API request or Stripe process is "
        "currently accessing it. If you see this error intermittently, retry the request. If you "
        "see this error frequently and are making multiple concurrent requests to a single object, "
        "make your requests serially or at a lower rate.",
        code="lock_timeout",
    )


def with_status(status: int) -> StripeError:
    """An error with no information but its status."""
    kind = "invalid_request_error" if 400 <= status < 500 else "api_error"  # noqa: PLR2004 - HTTP's
    return StripeError(status, "An error occurred.", type_=kind)


def server_error() -> StripeError:
    """The API's own failure; kept under the idempotency key like any other answer."""
    return StripeError(
        500,
        "An unknown error occurred. If you have any questions, we can help at "
        "https://support.stripe.com/.",
        type_="api_error",
        saved=True,
    )
