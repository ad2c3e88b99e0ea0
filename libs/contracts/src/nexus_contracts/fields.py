"""The field types that several events share."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, TypeAdapter

from nexus_contracts.wording import NOT_A_TIME, worded_pattern

BILLED_KEYWORD: Final = "x-billed"
BILLED: Final = Field(json_schema_extra={BILLED_KEYWORD: True})
"""Marks a field whose value decides whether, when, how much or to whom a run is charged, or keeps
it from being charged twice. Once a release has the field, its schema and its description never
change: ``python -m nexus_contracts.releases check`` fails.
"""

MAX_VALUE: Final = 999_999_999_999_999
"""Stripe refuses meter values of more than 15 significant digits."""

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=worded_pattern(r"^[^\x00-\x1f\x7f]+$", "must have no control characters"),
    ),
]
"""A short name without control characters; PostgreSQL could not store a null byte."""

MeterName = Annotated[Text, Field(max_length=100)]
"""The event name of a meter at Stripe, which takes at most 100 characters."""

StripeCustomerId = Annotated[
    str,
    Field(
        pattern=worded_pattern(
            r"^cus_[A-Za-z0-9_]{1,200}$", "must be a Stripe customer's id, cus_ and more"
        )
    ),
]


def _stripe_id(prefix: str, of: str) -> str:
    return worded_pattern(
        rf"^{prefix}_[A-Za-z0-9_]{{1,200}}$",
        f"must be the id of {of} at Stripe, {prefix}_ and more",
    )


SubscriptionId = Annotated[str, Field(pattern=_stripe_id("sub", "a subscription"))]
PriceId = Annotated[Text, Field(description="The price's id; an old one may be of any form.")]
ProductId = Annotated[Text, Field(description="The product's id, which its maker may choose.")]

Revision = Annotated[int, Field(ge=1, le=2**63 - 1)]
"""A number that rises, as PostgreSQL's `bigint` holds it."""

Identifier = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=worded_pattern(
            r"^[A-Za-z0-9._:-]+$", "must be of letters, digits and . _ : - alone"
        ),
    ),
]
"""A meter event's identifier; Stripe takes at most 100 characters."""

MAX_TOKENS: Final = 10_000_000_000
"""Of one run: the sum of 10,000 such runs still has at most 15 digits."""

Quantity = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
PositiveQuantity = Annotated[int, Field(gt=0, le=MAX_VALUE)]

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""Beyond these, AMQP's timestamps or a change of time zone would fail somewhere downstream."""


_LEAP_SECOND: Final = re.compile(r"(.*[Tt]\d\d:\d\d):60(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MOMENT: Final = TypeAdapter(AwareDatetime)


def _before_leap_second(minute: str, offset: str) -> datetime:
    """Return the last microsecond before a leap second, of which Python's times have none.

    So it stays on its day, and in its month. Leap seconds end months only
    (https://www.rfc-editor.org/rfc/rfc3339#section-5.7).

    Raises:
        ValueError: it ends no month, or the rest of it is no time.
    """
    moment = _MOMENT.validate_python(f"{minute}:59.999999{offset}")
    try:
        utc = moment.astimezone(UTC)
        ends_a_month = utc.month != (utc + timedelta(seconds=1)).month
    except OverflowError:
        ends_a_month = False
    if not ends_a_month:
        raise ValueError("a leap second ends a month")
    return moment


def _read_time(value: object) -> object:
    # The search for :60 spares each event the expression.
    if isinstance(value, str) and ":60" in value and (leap := _LEAP_SECOND.fullmatch(value)):
        return _before_leap_second(*leap.groups())
    # pydantic would take 1700000000, and guess from its size whether it means milliseconds.
    if isinstance(value, datetime) or (isinstance(value, str) and ("T" in value or "t" in value)):
        return value
    raise ValueError(NOT_A_TIME)


def _check_range(moment: datetime) -> datetime:
    if not moment.utcoffset():
        # Python compares and subtracts times faster if they share their zone object.
        moment = moment.astimezone(UTC)
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(f"must be a time from {EARLIEST:%Y} on and before {LATEST:%Y}")
    return moment


Moment = Annotated[
    AwareDatetime,
    Field(strict=False),  # after a validator in Python even JSON's strings count as Python's
    BeforeValidator(_read_time),
    AfterValidator(_check_range),
]
"""A time in RFC 3339 with its offset from UTC; digits beyond microseconds are dropped.

A leap second is read as the last microsecond before it.
"""

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = rf'[ \t]*{_WORD}=({_WORD}|"([^"\\]|\\.)*")'
_JSON_MEDIA_TYPE: Final = worded_pattern(
    rf"^[ \t]*{_WORD}/({_WORD}\+)?[Jj][Ss][Oo][Nn]([ \t]*;({_PARAMETER})?)*[ \t]*$",
    "must be a media type of JSON",
)


def _json_media_type(value: object) -> object:
    if value is None or value == "application/json":
        return "application/json"
    if isinstance(value, str) and re.fullmatch(_JSON_MEDIA_TYPE, value):
        return "application/json"
    return value


JsonMediaType = Annotated[
    Literal["application/json"],
    Field(description="A media type whose subtype is `json` or ends in `+json`; null: JSON, too."),
    BeforeValidator(
        _json_media_type,
        json_schema_input_type=Annotated[str, Field(pattern=_JSON_MEDIA_TYPE)] | None,
    ),
]
"""A media type as HTTP has them (https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1), of JSON.

Case and parameters do not matter: data within a JSON envelope is JSON in the envelope's encoding.
"""

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_context(value: object) -> str | None:
    """Return ``value`` if it is a trace context that can be read."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


TraceParent = Annotated[
    str | None,
    Field(
        description=(
            "Trace context of what this event tells of, as W3C Trace Context writes it:"
            " 00-<trace id>-<span id>-<flags>. Anything else reads as absent."
        ),
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    ),
    BeforeValidator(trace_context, json_schema_input_type=str | None),
]
"""A `traceparent` (https://www.w3.org/TR/trace-context/#traceparent-header) in its version 00.

Money does not hang on it, so a wrong one is read as absent, though the published schema has text.
"""
