"""Reads invalid message properties as absent.

The broker does not check properties. A time after the year 9999 or a name that is not UTF-8 makes
the client's decoder raise, which closes the connection with all prefetched messages, again at each
redelivery, until valid messages are dead-lettered because they were returned too often. Nothing
depends on such values, so they are read as absent.
"""

import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from pamqp import commands, decode
from pamqp.common import FieldValue, Struct
from pamqp.header import ContentHeader

Properties = commands.Basic.Properties

_SHORT_STRING_HEAD = 1
_TABLE_HEAD = 4
_TIMESTAMP_BYTES = 8

_strict_table = decode.field_table
_strict_timestamp = decode.timestamp
_strict_unmarshal: Final = Properties.unmarshal


def tolerate_invalid_properties() -> None:
    """Make the AMQP clients of this process decode every well-framed message."""
    decode.METHODS["shortstr"] = _short_string
    decode.METHODS["table"] = _table
    decode.METHODS["timestamp"] = _timestamp
    Properties.unmarshal = _unmarshal  # type: ignore[method-assign, assignment]


def read_properties(header: bytes) -> Properties:
    """Decode the properties in the payload of a content header, of 14 bytes at least."""
    content = ContentHeader()
    content.unmarshal(header)
    return content.properties


def _unmarshal(self: Properties, flags: int, data: bytes) -> None:
    with suppress(ValueError, IndexError, struct.error):  # the bytes end early
        _strict_unmarshal(self, flags, data)


def _short_string(value: bytes) -> tuple[int, str]:
    end = _SHORT_STRING_HEAD + value[0]
    # Dropping bytes, unlike replacing them, never makes a string too long to be sent again.
    return end, value[_SHORT_STRING_HEAD:end].decode(errors="ignore")


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        _, moment = _strict_timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None
    return _TIMESTAMP_BYTES, moment.astimezone(UTC)


def _table(value: bytes) -> tuple[int, FieldValue]:
    try:
        return _strict_table(value)
    except (ValueError, OverflowError, OSError, RecursionError):
        return _TABLE_HEAD + Struct.integer.unpack_from(value)[0], {}
