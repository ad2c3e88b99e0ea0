"""From a call's arguments to the bytes of an event, by the contract's own model: pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from nexus_contracts import (
    MAX_BODY_BYTES,
    Event,
    EventData,
    InvalidEventError,
    ToolExecutedV1,
    ToolExecutedV2,
    UserCreatedV1,
    UserCreatedV2,
    UserUpdated,
)
from nexus_contracts.wording import BrokenRule, broken_rules

KINDS: Final = (ToolExecutedV1, ToolExecutedV2, UserCreatedV1, UserCreatedV2, UserUpdated)

_MODELS: Final = [Event.__class_getitem__(kind) for kind in KINDS]
"""Made and held here. Else pydantic makes each in a call of the host, again after each garbage
collection; a KeyboardInterrupt in the middle of that would break the model for all later calls."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every event has beside its data."""

    id: UUID
    source: str
    time: datetime
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event's bytes, and whether its free-form field was left out."""

    body: bytes = field(repr=False)
    left_out: bool = False


def run_version(fields: Mapping[str, object]) -> type[EventData]:
    """Return the oldest version of a tool run that can say ``fields``: every release reads it."""
    details = ToolExecutedV2.model_fields.keys() - ToolExecutedV1.model_fields.keys()
    known = any(fields.get(name) is not None for name in details)
    return ToolExecutedV2 if known else ToolExecutedV1


def user_version(fields: Mapping[str, object]) -> type[EventData]:
    """Return the oldest version of a new user that can say ``fields``."""
    plain = fields.get("email") is not None and fields.get("stripe_customer_id") is None
    return UserCreatedV1 if plain else UserCreatedV2


def encode(kind: type[EventData], fields: Mapping[str, object], envelope: Envelope) -> Encoded:
    """Return the event as JSON; a free-form field that can't be written is left out.

    Raises:
        InvalidEventError: it breaks the contract; the text names fields and rules, no values.
    """
    free_form = kind.FREE_FORM
    if free_form is None or fields.get(free_form) is None:
        return Encoded(_checked(kind, fields, envelope))
    try:
        return Encoded(_checked(kind, fields, envelope))
    except InvalidEventError:
        rest = {name: value for name, value in fields.items() if name != free_form}
        return Encoded(_checked(kind, rest, envelope), left_out=True)


def _checked(kind: type[EventData], fields: Mapping[str, object], envelope: Envelope) -> bytes:
    try:
        body = _body(kind, fields, envelope)
    except ValidationError as error:
        raise InvalidEventError(*broken_rules(error)) from None
    except Exception as error:  # noqa: BLE001 - of values of the host, which may raise anything
        # Half of a surrogate pair, or a value nested too deeply, fails only when it is written.
        unwritable = BrokenRule("body", f"can't be written: {type(error).__name__}")
        raise InvalidEventError(unwritable) from None
    if len(body) > MAX_BODY_BYTES:
        too_long = f"has {len(body)} bytes, the limit is {MAX_BODY_BYTES}"
        raise InvalidEventError(BrokenRule("body", too_long))
    return body


def _body(kind: type[EventData], fields: Mapping[str, object], envelope: Envelope) -> bytes:
    fields = {name: _plain(value) for name, value in fields.items()}
    data = kind.model_validate({**fields, "user_id": _uuid(fields.get("user_id"))})
    event = Event.of(
        data,
        source=envelope.source,
        id=envelope.id,
        time=envelope.time,
        traceparent=envelope.traceparent,
    )
    return event.body()


def _plain(value: object) -> object:
    """Return a mapping as the dict that the contract's model takes."""
    return dict(value) if isinstance(value, Mapping) else value


def _uuid(value: object) -> object:
    """Return the UUID that a text holds; the contract's model takes no text from Python code."""
    try:
        return UUID(value) if isinstance(value, str) else value
    except ValueError:
        return value
