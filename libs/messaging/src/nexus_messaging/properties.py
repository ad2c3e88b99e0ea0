"""Reading message properties that a publisher got wrong.

The broker passes properties on unread: a time beyond year 9999 or a name that is no UTF-8 makes the
client's decoder raise, which kills the connection with everything prefetched on it, again at each
redelivery, until innocent messages are dead-lettered for having been returned too often. Nothing
here depends on the odd values, so they are read as absent.
"""

from datetime import UTC, datetime

from pamqp import decode
from pamqp.common import FieldValue, Struct

_SHORT_STRING_HEAD = 1
_TABLE_HEAD = 4
_TIMESTAMP_BYTES = 8

_strict_table = decode.field_table
_strict_timestamp = decode.timestamp


def tolerate_strange_properties() -> None:
    """Have this process's AMQP clients decode every well-framed message, whatever it carries."""
    decode.METHODS["shortstr"] = _short_string
    decode.METHODS["table"] = _table
    decode.METHODS["timestamp"] = _timestamp


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
