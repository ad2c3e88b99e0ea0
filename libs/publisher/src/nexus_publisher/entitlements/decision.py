"""What an answer of the usage API says about one tool run: pure.

``libs/publisher/tests/entitlement_cases.json`` holds the cases that this module and its twin in
TypeScript decide alike.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")


class Why(StrEnum):
    """Why a run may take place or not."""

    ALLOWED = "allowed"
    """The plan lets it run."""
    DENIED = "denied"
    """The plan does not have this tool."""
    LIMIT_REACHED = "limit_reached"
    """A hard limit of the plan is reached."""
    UNKNOWN = "unknown"
    """The user has no plan, and none is given to unknown users."""
    NO_ANSWER = "no_answer"
    """There was no answer within the budget: the feature's own choice holds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a tool may run; it is true if so.

    ``limit`` is the name of the limit that is reached. ``per_minute`` is the lowest rate limit of
    the server, for the host's own limiter. ``as_of`` is up to when usage was counted, ``None``
    without an answer. ``stale``: the answer is older than the API wanted.
    """

    allowed: bool
    why: Why
    limit: str | None = None
    per_minute: int | None = None
    as_of: datetime | None = None
    stale: bool = False

    def __bool__(self) -> bool:
        return self.allowed


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("no time of RFC 3339")
    return datetime.fromisoformat(value)


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Tools(_Wire):
    """Tools by patterns, in which ``*`` stands for any text."""

    server_id: str
    tool_name: str


class Limit(Tools):
    """A limit of the plan; only a hard one stops runs."""

    name: str
    hard: bool
    remaining: Annotated[float, Field(allow_inf_nan=False)]


class RateLimit(_Wire):
    """How often tools of some servers may run in a minute."""

    server_id: str
    per_minute: int


class Entitlement(_Wire):
    """What a user may run: ``GET /v1/entitlements/{user_id}``, as far as it is needed here."""

    user_id: str
    plan: str | None
    denied: tuple[Tools, ...]
    limits: tuple[Limit, ...]
    rate_limits: tuple[RateLimit, ...]
    as_of: Annotated[AwareDatetime, BeforeValidator(_moment)]


def read_entitlement(body: bytes, user_id: str) -> Entitlement | None:
    """Read an answer about ``user_id``; ``None`` if it is malformed or about somebody else."""
    try:
        read = Entitlement.model_validate_json(body)
    except ValidationError:
        return None
    return read if read.user_id == user_id else None


def decide(
    entitlement: Entitlement | None,
    server_id: str,
    tool_name: str,
    *,
    otherwise: bool,
    stale: bool = False,
) -> Decision:
    """Decide about one run; without an entitlement, ``otherwise`` holds."""
    if entitlement is None:
        return Decision(otherwise, Why.NO_ANSWER)
    rates = [
        rate.per_minute for rate in entitlement.rate_limits if matches(rate.server_id, server_id)
    ]
    why, limit = _why(entitlement, server_id, tool_name)
    return Decision(
        why is Why.ALLOWED, why, limit, min(rates, default=None), entitlement.as_of, stale
    )


def _why(entitlement: Entitlement, server_id: str, tool_name: str) -> tuple[Why, str | None]:
    if entitlement.plan is None:
        return Why.UNKNOWN, None
    if any(_covers(tools, server_id, tool_name) for tools in entitlement.denied):
        return Why.DENIED, None
    for limit in entitlement.limits:
        if limit.hard and limit.remaining <= 0 and _covers(limit, server_id, tool_name):
            return Why.LIMIT_REACHED, limit.name
    return Why.ALLOWED, None


def _covers(tools: Tools, server_id: str, tool_name: str) -> bool:
    return matches(tools.server_id, server_id) and matches(tools.tool_name, tool_name)


def matches(pattern: str, text: str) -> bool:
    """Return whether all of ``text`` fits; no pattern takes more than pattern x text steps."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first):
        return False
    end = len(text) - len(last)
    at = len(first)
    for part in rest:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return text.endswith(last)
