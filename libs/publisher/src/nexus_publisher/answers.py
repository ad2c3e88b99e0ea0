"""What became of a batch that was sent, and what an answer of the events API means: pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

from nexus_contracts.wording import printable


class Trouble(Enum):
    """The kind of a failure, by which it is decided what follows."""

    OUTAGE = auto()
    """It ends by itself: the same events are sent again, with a backoff."""
    CONFIGURATION = auto()
    """A person must act: a key, a password, a right, an address. They are sent again slowly."""
    TOO_LARGE = auto()
    """This batch will never be accepted: it is halved, and one event alone is refused."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the rest of a batch was not confirmed; ``cause`` holds no value of an event or a login.

    ``retry_after`` is what the other side asks to wait, in seconds.
    """

    trouble: Trouble
    cause: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What became of each event of a batch, by its index.

    ``refused`` has the rules that an event breaks: it will never be accepted. What is neither
    confirmed nor refused is sent again: after ``failure``, or at once without one.
    """

    confirmed: frozenset[int] = frozenset()
    refused: Mapping[int, str] = field(default_factory=dict)
    failure: Failure | None = None


MAX_RETRY_AFTER: Final = 3600.0
"""Seconds. A longer wait is taken for a mistake of a gateway."""

MAX_RULE_CHARACTERS: Final = 500
"""Of the rules that one event breaks, which are logged and counted with it."""

_TEMPORARY: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)


def answer_to(
    status: int, body: object, size: int, *, retry_after: str | None = None
) -> BatchAnswer:
    """Return what the API's answer to ``size`` events means.

    ``body`` is that of a 202 or of ``application/problem+json``, ``None`` if there is no such body.
    A 202 without the number of events, and a 400 without a problem, do not come from the API but
    from a gateway: no event is confirmed or dropped because of them.
    """
    if status == HTTPStatus.ACCEPTED and isinstance(body, dict) and body.get("accepted") == size:
        return BatchAnswer(frozenset(range(size)))
    if status == HTTPStatus.BAD_REQUEST and isinstance(body, dict):
        refused = _refused(body.get("errors"), size)
        if refused:
            return BatchAnswer(refused=refused)
        return BatchAnswer(failure=Failure(Trouble.TOO_LARGE, "the API answers 400"))
    cause = f"the API answers {status}"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return BatchAnswer(failure=Failure(Trouble.TOO_LARGE, cause))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TEMPORARY:
        return BatchAnswer(failure=Failure(Trouble.OUTAGE, cause, retry_after_seconds(retry_after)))
    return BatchAnswer(
        failure=Failure(Trouble.CONFIGURATION, cause, retry_after_seconds(retry_after))
    )


def _refused(errors: object, size: int) -> dict[int, str]:
    refused: dict[int, str] = {}
    for error in errors if isinstance(errors, list) else []:
        index = error.get("index") if isinstance(error, dict) else None
        if isinstance(index, int) and 0 <= index < size:
            rule = printable(f"{error.get('field', 'event')}: {error.get('rule', 'refused')}")
            known = f"{refused[index]}; " if index in refused else ""
            refused[index] = f"{known}{rule}"[:MAX_RULE_CHARACTERS]
    return refused


def retry_after_seconds(retry_after: str | None) -> float | None:
    """Return the seconds of ``Retry-After``; a date is not read, the backoff is then enough."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return min(float(retry_after), MAX_RETRY_AFTER)
