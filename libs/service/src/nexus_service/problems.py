"""The refusals of our HTTP APIs, as problem details (https://www.rfc-editor.org/rfc/rfc9457).

No text has a value of the request: clients log answers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from nexus_contracts.wording import BrokenRule

CONTENT_TYPE: Final = "application/problem+json"

RETRY_AFTER: Final = 5
"""Seconds to wait before a request that met an outage is repeated."""


class Code(StrEnum):
    """What a client branches on: the ``code`` of a problem."""

    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - no token
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    OTHER_CUSTOMER = "other_customer"
    ID_TAKEN = "id_taken"
    NOT_ASSIGNABLE = "not_assignable"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    OVERLOADED = "overloaded"
    BROKER_UNAVAILABLE = "broker_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"


_STATUS: Final = {
    Code.INVALID: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    Code.TOKEN_EXPIRED: HTTPStatus.UNAUTHORIZED,
    Code.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.BODY_TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    Code.OTHER_CUSTOMER: HTTPStatus.CONFLICT,
    Code.ID_TAKEN: HTTPStatus.CONFLICT,
    Code.NOT_ASSIGNABLE: HTTPStatus.CONFLICT,
    Code.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.OVERLOADED: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.BROKER_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATABASE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A broken rule of a request, and the index of its event in a batch, counted from 0."""

    broken: BrokenRule
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A refused request. ``retry_after``: seconds after which the same request may succeed."""

    code: Code
    detail: str
    faults: Sequence[Fault] = ()
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _STATUS[self.code].value

    @property
    def headers(self) -> dict[str, str]:
        """The headers beside the content type."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> bytes:
        """Return the problem details in JSON."""
        body: dict[str, Any] = {
            "title": _STATUS[self.code].phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.faults:
            body["errors"] = [_fault(fault) for fault in self.faults]
        return json.dumps(body).encode()


class ProblemError(Exception):
    """The request is refused with ``problem``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def _fault(fault: Fault) -> dict[str, Any]:
    place = {} if fault.index is None else {"index": fault.index}
    return place | {"field": fault.broken.field, "rule": fault.broken.rule}


UNAUTHORIZED: Final = Problem(Code.UNAUTHORIZED, "Authorization has none of the configured keys")
