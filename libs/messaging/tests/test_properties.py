"""Properties that a publisher got wrong are read as absent; right ones as they are."""

import struct
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands, decode, encode
from pamqp.header import ContentHeader

from nexus_messaging.properties import read_properties, tolerate_invalid_properties

tolerate_invalid_properties()

tables = st.dictionaries(
    st.text("abc-", min_size=1, max_size=10),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=50),
    max_size=5,
)


@given(st.binary(max_size=255))
def test_any_short_string_is_read_and_can_be_published(raw: bytes) -> None:
    """Bytes that are no text are dropped, so that a copy is never too long."""
    consumed, text = decode.by_type(bytes([len(raw)]) + raw + b"rest", "shortstr")

    assert consumed == len(raw) + 1
    assert len(encode.short_string(str(text))) <= consumed


@given(st.integers(0, 2**64 - 1))
def test_any_time_is_read_or_absent(seconds: int) -> None:
    """A time beyond what a clock can show is none; the bytes behind it are still found."""
    consumed, moment = decode.by_type(struct.pack(">Q", seconds) + b"rest", "timestamp")

    assert consumed == 8
    assert moment is None or (isinstance(moment, datetime) and moment.tzinfo == UTC)


@given(st.binary(max_size=300))
def test_any_table_is_read_or_empty(noise: bytes) -> None:
    """Whatever is inside, what comes behind the table is still found."""
    consumed, _ = decode.by_type(struct.pack(">I", len(noise)) + noise + b"rest", "table")

    assert consumed == len(noise) + 4


@given(tables, st.text("abc", max_size=20))
def test_valid_properties_are_unchanged(headers: dict[str, object], message_id: str) -> None:
    """The tolerance changes nothing for well-formed properties."""
    stamp = datetime(2026, 3, 1, tzinfo=UTC)
    sent = commands.Basic.Properties(
        headers=dict(headers),  # type: ignore[arg-type] # the library's own union of values
        message_id=message_id,
        timestamp=stamp,
        expiration="5",
    )
    header = ContentHeader()
    header.unmarshal(ContentHeader(0, 7, sent).marshal())

    assert header.body_size == 7
    assert (header.properties.headers or {}) == headers
    assert (header.properties.message_id or "") == message_id
    assert (header.properties.timestamp, header.properties.expiration) == (stamp, "5")


@given(st.integers(0, 40))
def test_properties_that_end_early_are_read_as_far_as_they_go(length: int) -> None:
    """The others are absent, and the message is judged by its body."""
    sent = commands.Basic.Properties(content_type="text/plain", message_id="id", message_type="t")
    whole = ContentHeader(0, 7, sent).marshal()

    read = read_properties(whole[: 14 + length])

    assert (read.content_type or "") == "text/plain"[: max(0, length - 1)]
    assert read.message_type in ({"t"} if length >= 16 else {None, ""})


def test_hypothesis_has_no_deadline() -> None:
    """How long examples take to make and to try says nothing about the code, in any package."""
    unhurried = settings()

    assert unhurried.deadline is None
    assert HealthCheck.too_slow in unhurried.suppress_health_check
