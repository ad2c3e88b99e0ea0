"""Values that are known to break software, for mutations to choose from."""

from typing import Any, Final

CONFUSIONS: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1.5, 1e308, "", " ", "null", [], {}, [[]], {"a": {"b": []}},
    2**31, 2**63, 2**64, -(2**63) - 1, 10**20, "x" * 5000, "\x00", "a\x00b", "\x1b[31m",
    "\u202eevil", "\U0001f4a9" * 60, "\ufeff", "é" * 201, "../../etc/passwd", "'; DROP TABLE x; --",
    "${jndi:ldap://x}", "1", "1e3", "NaN", "2026-02-30T00:00:00Z", 1_770_000_000, [1, "a", None],
)  # fmt: skip
"""JSON values of another type, size or meaning."""

TIMES: Final = (
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01T24:00:00Z",
    "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01t00:00:00z",
    "2026-01-01T00:00:00+14:00", "2026-01-01T00:00:00-23:59", "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00.123456789123456789Z", "Thu, 01 Jan 2026 00:00:00 GMT", "now", "",
    "2999-01-01T00:00:00Z", "2020-06-01T00:00:00Z",
)  # fmt: skip
"""Invalid times, and times far from now."""

NUMBERS: Final = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"-0", b"-0.0", b"1E2", b"1e2", b"01",
    b"0x10", b"1_000", b"9" * 30, b"9" * 4000, b"9" * 5000, b"0." + b"1" * 400, b"1e-400", b"+1",
    b".5", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"10000000001",
)  # fmt: skip
"""Numbers as written in JSON, or not in JSON."""

WORDS: Final = (
    rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u0000"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"',
    b'"\x00"', b'"\t"', b'"\x7f"', '"\u2028"'.encode(), '"\uffff"'.encode(), rb'"\uD83D\uDE00"',
    b'"' + b"a" * 70_000 + b'"', rb'"\q"', rb'"\u12"', '"\u0645\u200f"'.encode(), b'"a', b'""',
)  # fmt: skip
"""Strings as written in JSON, or not in JSON."""

ENCODINGS: Final = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp037", "utf-7")
PREFIXES: Final = (b"\xef\xbb\xbf", b"\x1f\x8b", b"\x00\x01", b"PK\x03\x04")
LEVELS: Final = (10, 100, 190, 199, 200, 201, 500, 5000, 60_000)
"""Levels of nesting; the parser's limit is around 200."""

WHOLES: Final = (
    b"", b"null", b"{}", b"[]", b"0", b'""', b"\x00" * 64, b"<event/>", b"id=1&type=x", b"\xff" * 9,
)  # fmt: skip
"""Bodies that are no events."""
