"""Decides what kind of answer a call got, from what passed over the wire.

Only bytes and headers decide, never the class of an exception: the SDK raises its own classes for a
refusal, and for a body that Stripe did not make it may raise anything.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from nexus_stripe.answers import Receipt, StripeAnswer, names_other_mode, recognise

_SUCCESS: Final = range(200, 300)
_UNAUTHORIZED: Final = 401

_REQUEST_ID: Final = re.compile(r"req_[A-Za-z0-9_]{1,100}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PATH: Final = re.compile(r"[\x21-\x7e]{1,200}")
_REALM: Final = re.compile(r'realm="Stripe"', re.IGNORECASE)


@dataclass(slots=True)
class HttpExchange:
    """One request and its response, as far as they got.

    ``written`` says whether the request was handed to a connection. ``body`` is None until all of
    it was received. The names of ``headers`` are compared without regard to case.
    """

    written: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def answer_of(
    exchange: HttpExchange, *, understood: bool, cause: str | None = None
) -> StripeAnswer:
    """Return the answer that an exchange amounts to; it never raises.

    Args:
        exchange: The call's only request, or its last one.
        understood: Whether the body of a success could be read as the requested object.
        cause: The class of the error that was raised instead.
    """
    if exchange.status is None or exchange.body is None:
        receipt = Receipt.LOST if exchange.written else Receipt.NEVER_SENT
        return StripeAnswer(receipt, cause=cause)
    headers = {name.lower(): value for name, value in exchange.headers.items()}
    request_id = _matching(_REQUEST_ID, headers.get("request-id"))
    unreadable = StripeAnswer(Receipt.UNREADABLE, status=exchange.status, request_id=request_id)
    if request_id is None and not _is_key_refusal(exchange.status, headers):
        return unreadable
    if exchange.status in _SUCCESS:
        error: Mapping[str, Any] | None = {} if understood else None
    else:
        error = _error_object(exchange.body)
    if error is None:
        return unreadable
    return StripeAnswer(
        Receipt.ANSWERED,
        status=exchange.status,
        type=error.get("type"),
        code=error.get("code"),
        param=error.get("param"),
        wording=recognise(error.get("message"), error.get("code")),
        other_mode=names_other_mode(error.get("message")),
        should_retry={"true": True, "false": False}.get(headers.get("stripe-should-retry", "")),
        limited_by=headers.get("stripe-rate-limited-reason"),
        replayed=headers.get("idempotent-replayed") == "true",
        request_id=request_id,
        date=_date(headers.get("date")),
    )


def _is_key_refusal(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether Stripe refuses the key, its only answer without a Request-Id.

    Observed from the live API: 401, ``WWW-Authenticate: Bearer realm="Stripe"``, no ``Request-Id``.
    """
    realm = _REALM.search(headers.get("www-authenticate", ""))
    return status == _UNAUTHORIZED and realm is not None


def _error_object(body: bytes) -> Mapping[str, Any] | None:
    """Return Stripe's error object (https://docs.stripe.com/api/errors); None if it is another."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if not isinstance(error, dict) or _matching(_NAME, error.get("type")) is None:
        return None
    message, code, param = error.get("message"), error.get("code"), error.get("param")
    fits = (
        (message is None or isinstance(message, str))
        and (code is None or _matching(_NAME, code) is not None)
        and (param is None or _matching(_PATH, param) is not None)
    )
    return error if fits else None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _date(value: str | None) -> float | None:
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
