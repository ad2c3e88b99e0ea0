"""The CloudEvents 1.0 envelope: converts bodies to events and events to bodies."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from nexus_contracts.errors import InvalidEventError, UnreadableError, UnsupportedVersionError
from nexus_contracts.fields import (
    BILLED,
    JsonMediaType,
    Moment,
    Text,
    TraceParent,
    trace_context,
)
from nexus_contracts.json_nulls import set_null
from nexus_contracts.wording import BrokenRule, broken_rules

CONTENT_TYPE: Final = "application/cloudevents+json"
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"
MAX_BODY_BYTES: Final = 256 * 1024
"""Of one event. The broker takes messages twice as large, so that one too long is dead-lettered."""

_SOURCE: Final[TypeAdapter[str]] = TypeAdapter(Text)
_LEFT_OUT: Final = "_left_out"
_TYPE: Final = re.compile(rb'"type"[ \t\r\n]*:[ \t\r\n]*"([^"]*)"')

_ID: Final = "Made once and the same on every retry. An id is charged once, for ever."
_SOURCE_NAME: Final = "The name of the service that published the event, always the same."
_TIME: Final = "When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended."

_CONFIG: Final = ConfigDict(
    frozen=True,
    strict=True,
    extra="ignore",
    allow_inf_nan=False,
    hide_input_in_errors=True,  # pydantic's own text would quote e-mail addresses
)


# Docstrings of fields are their descriptions in the published schemas. Not so the envelope's:
# pydantic would look for them in the code that names Event[...], and fail.
DATA_CONFIG: Final = ConfigDict(**_CONFIG, use_attribute_docstrings=True)
"""Of an event's data, and of the objects within."""


class EventData(BaseModel):
    """What every version of every event shares: frozen, strict, unknown fields ignored.

    ``TYPE`` is the CloudEvents ``type``: the event's name and its major version.
    """

    model_config = DATA_CONFIG

    TYPE: ClassVar[str]
    FREE_FORM: ClassVar[str | None] = None
    """The field that is the publisher's own: left out if it can't be read, and refusing nothing."""


DataT_co = TypeVar("DataT_co", bound=EventData, covariant=True)
DataT = TypeVar("DataT", bound=EventData)


class Event(BaseModel, Generic[DataT_co]):
    """One fact. ``id`` is the producer's, the same on every retry; ``time`` is when it happened.

    ``traceparent`` is CloudEvents' extension for distributed tracing
    (https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md):
    the context of the producer's trace, untouched on the way.
    """

    model_config = _CONFIG

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[UUID, BILLED, Field(description=_ID)]
    source: Annotated[Text, Field(description=_SOURCE_NAME)]
    type: str
    time: Annotated[Moment, BILLED, Field(description=_TIME)]
    datacontenttype: JsonMediaType = "application/json"
    traceparent: TraceParent = None
    data: DataT_co

    @classmethod
    def of(
        cls,
        data: DataT,
        *,
        source: str,
        id: UUID,  # noqa: A002 - the envelope's own word
        time: datetime,
        traceparent: str | None = None,
    ) -> "Event[DataT]":
        """Wrap ``data`` into an event of its type; ``time`` must be aware."""
        kind: Any = Event.__class_getitem__(type(data))
        event: Event[DataT] = kind(
            source=source, id=id, type=data.TYPE, time=time, traceparent=traceparent, data=data
        )
        return event

    @property
    def left_out(self) -> bool:
        """Whether the free-form field was invalid or unreadable, and was therefore left out."""
        # Not a private attribute of pydantic, which would call Python to set each event's default.
        return _LEFT_OUT in self.__dict__

    def mark_left_out(self) -> Self:
        """Return a copy that says that its free-form field was left out."""
        event = self.model_copy()
        event.__dict__[_LEFT_OUT] = True
        return event

    def body(self) -> bytes:
        """Return the event as structured CloudEvents JSON in UTF-8, absent fields left out."""
        return self.model_dump_json(exclude_none=True).encode()


def read_event(body: bytes, accepted: Sequence[type[DataT]]) -> Event[DataT]:
    """Read a body as one of the ``accepted`` kinds of data, chosen by the envelope's ``type``.

    If only the free-form field is unreadable or breaks the contract, the body is read without that
    field.

    Raises:
        UnreadableError: no JSON, no envelope, or more than ``MAX_BODY_BYTES``.
        UnsupportedVersionError: another major version of an accepted event.
        InvalidEventError: another event, or data that breaks the contract.
    """
    if len(body) > MAX_BODY_BYTES:
        too_long = f"has {len(body)} bytes, the limit is {MAX_BODY_BYTES}"
        raise UnreadableError(BrokenRule("body", too_long))
    event = _read_in_one_pass(body, accepted)
    return _read_in_two_passes(body, accepted) if event is None else event


def _read_in_one_pass(body: bytes, accepted: Sequence[type[DataT]]) -> Event[DataT] | None:
    """Return the event of a body that is certainly read the same in two passes; else ``None``.

    This decides nothing by itself: what is invalid or unusual is read, and refused, by the passes.
    """
    # The model would skip NaN in fields that it ignores; the first of two passes refuses it.
    if may_have_nan(body) or (guess := _TYPE.search(body)) is None:
        return None
    read = _readers(tuple(accepted)).get(guess[1])
    if read is None:
        return None
    try:
        event: Event[DataT] = read(body)
    except ValidationError:
        return None
    # The guess may be a `type` within the data, or one that is repeated; and the model would fill
    # in a `specversion` that is missing.
    if event.type.encode() != guess[1] or "specversion" not in event.model_fields_set:
        return None
    return event


def may_have_nan(text: bytes) -> bool:
    """Whether JSON text has the letters of NaN or an infinity, be it within a string."""
    # A search for one byte takes a tenth of the time, and most texts have neither letter.
    return (b"N" in text and b"NaN" in text) or (b"I" in text and b"Infinity" in text)


@cache
def _readers(accepted: tuple[type[EventData], ...]) -> Mapping[bytes, Callable[[bytes], Any]]:
    return {data.TYPE.encode(): _reader(data) for data in accepted}


@cache
def _reader(data: type[EventData]) -> Callable[[bytes], Any]:
    """Return what validates a body as an event of ``data``; making it takes longer than using it.

    It raises ``ValidationError``.
    """
    kind: Any = Event.__class_getitem__(data)
    return TypeAdapter(kind).validator.validate_json


def _read_in_two_passes(body: bytes, accepted: Sequence[type[DataT]]) -> Event[DataT]:
    try:
        return _read(body, accepted)
    except UnreadableError:
        rest = _without_free_form(body, accepted)
        if rest is None:
            raise
    return _read(rest, accepted).mark_left_out()


def _without_free_form(body: bytes, accepted: Sequence[type[EventData]]) -> bytes | None:
    rest = None
    for name in {data.FREE_FORM for data in accepted} - {None}:
        rest = set_null(rest or body, ("data", str(name))) or rest
    return rest


def _read(body: bytes, accepted: Sequence[type[DataT]]) -> Event[DataT]:
    kind = _type_of(body)
    by_type = {data.TYPE: data for data in accepted}
    if kind not in by_type:
        raise _unexpected_type(kind, accepted)
    return _read_as(body, by_type[kind])


def _type_of(body: bytes) -> str:
    """Return the envelope's ``type``; refuse NaN and infinities, which are not JSON."""
    try:
        envelope = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise UnreadableError(BrokenRule("body", "is not JSON")) from None
    if not isinstance(envelope, dict):
        raise UnreadableError(BrokenRule("body", "must be an object"))
    if envelope.get("specversion") != "1.0":
        raise UnreadableError(BrokenRule("specversion", "not a CloudEvents 1.0 envelope"))
    kind = envelope.get("type")
    if not isinstance(kind, str):
        raise UnreadableError(BrokenRule("type", "must be text"))
    return kind


def _read_as(body: bytes, data: type[DataT]) -> Event[DataT]:
    read = _reader(data)
    try:
        event: Event[DataT] = read(body)
    except ValidationError as error:
        if not _only_free_form_is_wrong(error, data):
            raise InvalidEventError(*broken_rules(error)) from None
    else:
        return event
    envelope = from_json(body)
    del envelope["data"][data.FREE_FORM]
    event = read(to_json(envelope))
    return event.mark_left_out()


def _only_free_form_is_wrong(error: ValidationError, data: type[EventData]) -> bool:
    places = {detail["loc"][:2] for detail in error.errors(include_input=False, include_url=False)}
    return data.FREE_FORM is not None and places == {("data", data.FREE_FORM)}


def _unexpected_type(
    kind: str, accepted: Sequence[type[EventData]]
) -> UnsupportedVersionError | InvalidEventError:
    known = ", ".join(data.TYPE for data in accepted)
    names = {data.TYPE.rpartition(".")[0] for data in accepted}
    name, _, major = kind.rpartition(".")
    if name in names and major[:1] == "v" and major[1:].isdecimal():
        rule = f"this major version is not read here, only {known}"
        return UnsupportedVersionError(BrokenRule("type", rule))
    return InvalidEventError(BrokenRule("type", f"not an event that is read here, only {known}"))


def event_type_of(body: bytes) -> str | None:
    """Return the ``type`` of a body, even if the rest of the body is invalid."""
    kind = _field_of(body, "type")
    return kind if isinstance(kind, str) else None


def traceparent_of(body: bytes) -> str | None:
    """Return the trace context of a body, even if the rest of the body is invalid."""
    return trace_context(_field_of(body, "traceparent"))


def source_of(body: bytes) -> str | None:
    """Return the ``source`` of a body, even if the rest of the body is invalid."""
    try:
        return _SOURCE.validate_python(_field_of(body, "source"), strict=True)
    except ValidationError:
        return None


def _field_of(body: bytes, name: str) -> object:
    if f'"{name}"'.encode() not in body or len(body) > MAX_BODY_BYTES:
        return None
    try:
        envelope = from_json(body)
    except ValueError:
        return None
    return envelope.get(name) if isinstance(envelope, dict) else None
