"""Reads requests of the events API: their form, their events, and every rule that is broken.

Everything here is pure. The forms are CloudEvents' HTTP binding
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md), and
plain JSON without CloudEvents' headers or media types, as PostgreSQL's ``pg_net`` sends it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final
from urllib.parse import unquote_to_bytes

from nexus_contracts import (
    BATCH_CONTENT_TYPE,
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    ContractError,
    Event,
    EventData,
    read_event,
)
from nexus_contracts.wording import BrokenRule
from nexus_messaging.message import Message
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_service.api_keys import FULL_BATCH, ApiKey
from nexus_service.media_types import media_type_of
from nexus_service.problems import Code, Fault, Problem, ProblemError

JSON_CONTENT_TYPE: Final = "application/json"
CONTENT_TYPES: Final = (CONTENT_TYPE, BATCH_CONTENT_TYPE, JSON_CONTENT_TYPE)

_ATTRIBUTE_PREFIX: Final = "ce-"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
# A number of thousands of digits is no reason to refuse the events beside it.
_JSON: Final = json.JSONDecoder(parse_int=str)


class Form(Enum):
    """How a request carries its events."""

    STRUCTURED = auto()
    BATCH = auto()
    BINARY = auto()
    PLAIN = auto()


def form_of(headers: Mapping[str, str]) -> Form:
    """Return the form of a request; ``headers`` has lower-case names.

    Raises:
        ProblemError: an unsupported media type, character set or content coding.
    """
    media_type = media_type_of(headers.get("content-type"), headers.get("content-encoding"))
    if media_type == CONTENT_TYPE:
        return Form.STRUCTURED
    if media_type == BATCH_CONTENT_TYPE:
        return Form.BATCH
    if media_type == JSON_CONTENT_TYPE:
        is_binary = any(name.startswith(_ATTRIBUTE_PREFIX) for name in headers)
        return Form.BINARY if is_binary else Form.PLAIN
    detail = f"Content-Type is {', '.join(CONTENT_TYPES)}, in UTF-8, without Content-Encoding"
    raise ProblemError(Problem(Code.UNSUPPORTED_MEDIA_TYPE, detail))


def bodies_of(form: Form, headers: Mapping[str, str], body: bytes) -> list[bytes]:
    """Return the body of each event in a request, as it was sent.

    Raises:
        ProblemError: too many events, or no JSON array where there must be one.
    """
    if form is Form.BINARY:
        return [_structured(headers, body)]
    if form is Form.BATCH or (form is Form.PLAIN and body.lstrip(b" \t\r\n")[:1] == b"["):
        return list(_elements(body))
    return [body]


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is not published, and the rules that it breaks."""

    code: Code
    broken: Sequence[BrokenRule]


def read_message(body: bytes, key: ApiKey, traceparent: str | None) -> Message | Refused:
    """Return the message that carries an event, or why the event is refused.

    ``traceparent`` becomes the event's if it has none and stays within the size limit.
    """
    try:
        event = read_event(body, OUTSIDE_EVENTS)
    except ContractError as error:
        code = Code.TOO_LARGE if len(body) > MAX_BODY_BYTES else Code.INVALID
        return Refused(code, error.broken)
    if forbidden := _forbidden(event, key):
        return Refused(Code.FORBIDDEN, forbidden)
    if event.traceparent is None and traceparent is not None:
        body = _with_traceparent(body, traceparent)
    return Message(body, message_id=str(event.id), type=event.type, timestamp=event.time)


def problem_of(refused: Mapping[int, Refused]) -> Problem:
    """Return the problem of a request with ``refused`` events, by their index.

    An event that only the key forbids is named if no event breaks a rule: clients drop what a 400
    or a 413 names, and a key can be corrected. Events that break rules of both make a 400.
    """
    wrong = {index: each for index, each in refused.items() if each.code is not Code.FORBIDDEN}
    named = wrong or refused
    codes = {each.code for each in named.values()}
    return Problem(
        codes.pop() if len(codes) == 1 else Code.INVALID,
        "nothing was published; leave out the events in `errors`, and send the others again",
        [Fault(broken, index) for index, each in named.items() for broken in each.broken],
    )


def _forbidden(event: Event[EventData], key: ApiKey) -> list[BrokenRule]:
    broken = []
    if not key.may_publish_as(event.source):
        broken.append(BrokenRule("source", "this key may not publish as this source"))
    if not key.may_publish(event.type):
        broken.append(BrokenRule("type", "this key may not publish this type"))
    return broken


def _structured(headers: Mapping[str, str], data: bytes) -> bytes:
    """Return the body in structured mode of an event in binary mode.

    Raises:
        ProblemError: ``data`` is not one JSON value.
    """
    values = list(_elements(b"[%b]" % data))
    if len(values) != 1:
        raise ProblemError(_invalid_body("data", "is not JSON"))
    attributes = {
        name.removeprefix(_ATTRIBUTE_PREFIX): _attribute(value)
        for name, value in headers.items()
        if name.startswith(_ATTRIBUTE_PREFIX)
    }
    attributes["datacontenttype"] = JSON_CONTENT_TYPE
    attributes.pop("data", None)
    return b'%b,"data":%b}' % (json.dumps(attributes).encode()[:-1], values[0])


def _attribute(value: str) -> str:
    """Decode the value of a header, which is percent-encoded UTF-8."""
    return unquote_to_bytes(value.encode("latin-1")).decode("utf-8", "replace")


def _elements(body: bytes) -> Iterator[bytes]:
    """Yield each element of a JSON array as it is written.

    An element may have what strict parsers refuse, such as half of a surrogate pair.

    Raises:
        ProblemError: no JSON array in UTF-8, or more than ``FULL_BATCH``.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ProblemError(_invalid_body("body", "is not UTF-8")) from None
    at, number = _after_space(text, 0), 0
    if text[at : at + 1] != "[":
        raise ProblemError(_invalid_body("body", "must be a JSON array of events"))
    at = _after_space(text, at + 1)
    if text[at : at + 1] == "]":
        at += 1
    else:
        while True:
            if number == FULL_BATCH:
                detail = f"a request has at most {FULL_BATCH} events"
                raise ProblemError(Problem(Code.TOO_LARGE, detail))
            try:
                _, end = _JSON.raw_decode(text, at)
            except (ValueError, RecursionError):
                raise ProblemError(_broken_off(number)) from None
            yield text[at:end].encode()
            number += 1
            at = _after_space(text, end)
            separator, at = text[at : at + 1], _after_space(text, at + 1)
            if separator == "]":
                break
            if separator != ",":
                raise ProblemError(_broken_off(number))
    if text[at:].strip(" \t\r\n"):
        raise ProblemError(_invalid_body("body", "has more after its array"))


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _with_traceparent(body: bytes, traceparent: str) -> bytes:
    # As the last field: it replaces a null or an unreadable one before it.
    longer = b'%b,"traceparent":"%b"}' % (body.rstrip()[:-1], traceparent.encode())
    return longer if len(longer) <= MAX_BODY_BYTES else body


def _invalid_body(field: str, rule: str) -> Problem:
    fault = Fault(BrokenRule(field, rule))
    return Problem(Code.INVALID, "nothing was published: the body can't be read", [fault])


def _broken_off(index: int) -> Problem:
    rule = "is not JSON, or is nested too deeply; the events after it were not read"
    fault = Fault(BrokenRule("body", rule), index)
    return Problem(Code.INVALID, "nothing was published: the body can't be read", [fault])
