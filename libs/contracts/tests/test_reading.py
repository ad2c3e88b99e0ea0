"""Whatever arrives is an event or a `ContractError`, and the error repeats nothing of it."""

import contextlib
import json
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nexus_contracts import (
    ALL_EVENTS,
    MAX_BODY_BYTES,
    ContractError,
    InvalidEventError,
    ToolExecuted,
    UnreadableError,
    UnsupportedVersionError,
    read_event,
)
from nexus_contracts.envelope import source_of
from nexus_contracts.schemas import schema_of

GOLDEN = Path(__file__).parent / "golden"
VALID: dict[str, Any] = json.loads((GOLDEN / "tool.executed.v1.full.json").read_text("utf-8"))
MARK = "s3cret@example.com"
MARKED = (MARK + "\n", [MARK], {MARK: MARK + "\x00"}, {"a": {MARK: float("nan")}})

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def body(*, data: dict[str, Any] | None = None, **envelope: Any) -> bytes:
    """Return the valid message with some fields replaced."""
    return json.dumps(VALID | envelope | {"data": VALID["data"] | (data or {})}).encode()


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_as_a_contract_error(noise: bytes) -> None:
    """No body makes reading fail in a way that the retry policy does not know."""
    with pytest.raises(ContractError):
        read_event(noise, ALL_EVENTS)


@given(st.dictionaries(st.sampled_from([*VALID, "subject"]), json_values))
def test_arbitrary_json_is_an_event_or_a_contract_error(envelope: dict[str, Any]) -> None:
    """Any JSON in any field of the envelope, and the envelope's fields missing."""
    with contextlib.suppress(ContractError):
        read_event(json.dumps(envelope).encode(), ALL_EVENTS)


@settings(max_examples=300)
@given(st.data())
def test_arbitrary_json_in_a_field_is_read_or_refused(values: st.DataObject) -> None:
    """Any JSON in any field of otherwise valid messages of every type."""
    golden = values.draw(st.sampled_from(sorted(GOLDEN.glob("*.json"))))
    message = json.loads(golden.read_text("utf-8"))
    place = message["data"] if values.draw(st.booleans()) else message
    place[values.draw(st.sampled_from(sorted(place)))] = values.draw(json_values)

    with contextlib.suppress(ContractError):
        read_event(json.dumps(message).encode(), ALL_EVENTS)


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_no_value_of_a_message_enters_an_error(golden: Path) -> None:
    """Each field in turn holds a marked value, alone, in a list, as a key: no error shows it."""
    message = json.loads(golden.read_text("utf-8"))
    spoilt = [
        *(message | {field: value} for field in message for value in MARKED),
        *(
            message | {"data": message["data"] | {field: value}}
            for field in message["data"]
            for value in MARKED
        ),
    ]

    texts = [text for each in spoilt for text in error_texts(json.dumps(each).encode())]

    assert texts
    assert not [text for text in texts if MARK in text]


def error_texts(message: bytes) -> list[str]:
    """Return all texts of the error that reading raises, if it does."""
    try:
        read_event(message, ALL_EVENTS)
    except ContractError as error:
        return [str(error), repr(error), *traceback.format_exception(error)]
    return []


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", UnreadableError),
        (b"[]", UnreadableError),
        (b"{}", UnreadableError),
        (b"[" * 100_000, UnreadableError),
        (b'{"specversion":"1.0","type":"tool.executed.v1","x":NaN}', UnreadableError),
        (body(specversion="0.3"), UnreadableError),
        (body(type=7), UnreadableError),
        (body().replace(b"forecast", b"\xff"), UnreadableError),
        (body(padding="x" * MAX_BODY_BYTES), UnreadableError),
        (body(type="tool.executed.v2"), UnsupportedVersionError),
        (body(type="tool.executed.v10"), UnsupportedVersionError),
        (body(type="tool.executed.vx"), InvalidEventError),
        (body(type="tool.executed"), InvalidEventError),
        (body(type="usage.recorded.v1"), InvalidEventError),
        (body(type=""), InvalidEventError),
        (body(id="not a uuid"), InvalidEventError),
        (body(data={"user_id": 7}), InvalidEventError),
        (body(datacontenttype="text/plain"), InvalidEventError),
    ],
    ids=str,
)
def test_each_fault_has_its_own_error(message: bytes, error: type[ContractError]) -> None:
    """Operators and alerts tell the faults apart by the dead letter's reason."""
    with pytest.raises(error):
        read_event(message, [ToolExecuted])


@pytest.mark.parametrize("message", [b"[]", b"7", b"null", b'"text"'])
def test_a_body_that_is_no_object_is_called_so(message: bytes) -> None:
    """And not an envelope without its `specversion`."""
    with pytest.raises(UnreadableError, match=r"^body: must be an object$"):
        read_event(message, [ToolExecuted])


def test_a_body_of_exactly_the_limit_is_read() -> None:
    """The limit of 256 KiB is inclusive."""
    room = MAX_BODY_BYTES - len(body(padding=""))

    assert read_event(body(padding="x" * room), [ToolExecuted]).data.tool_name == "forecast"


@pytest.mark.parametrize(
    "time",
    [
        "2026-03-01T12:00:00",
        "2026-03-01",
        "1772366400",
        1772366400,
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        None,
    ],
)
def test_a_time_that_could_be_misread_is_refused(time: object) -> None:
    """Times without an offset, bare numbers and times out of range are ambiguous."""
    with pytest.raises(InvalidEventError, match=r"^time: "):
        read_event(body(time=time), [ToolExecuted])


def test_a_time_is_read_with_its_offset() -> None:
    """Offsets and fractions as RFC 3339 writes them; beyond microseconds digits are dropped."""
    event = read_event(body(time="2026-03-01t14:00:00.123456789+02:00"), [ToolExecuted])

    assert event.time == datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        7,
        ["00-" + "a" * 32 + "-" + "b" * 16 + "-01"],
        {"trace": "id"},
        "s3cret@example.com",
        "00-" + "a" * 32 + "-" + "b" * 16,
        "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01-more",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01\n",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
    ],
    ids=str,
)
def test_unreadable_trace_context_is_read_as_absent(traceparent: object) -> None:
    """No run goes unbilled for the sake of its trace; the schema asks for text or null, no more."""
    message = body(traceparent=traceparent)

    is_text = traceparent is None or isinstance(traceparent, str)
    assert read_event(message, [ToolExecuted]).traceparent is None
    assert Draft202012Validator(schema_of(ToolExecuted)).is_valid(json.loads(message)) is is_text


@pytest.mark.parametrize(
    ("raw", "source"),
    [
        (body(), VALID["source"]),
        (body(data=None, specversion="9"), VALID["source"]),
        (b'{"source":"a/b"}', "a/b"),
        (body(source=None), None),
        (body(source=7), None),
        (body(source=""), None),
        (body(source="x" * 201), None),
        (body(source="a\nb"), None),
        (b'{"source":"\\ud800"}', None),
        (b'["source"]', None),
        (b'{"source":"a/b"', None),
        (b'{"source":"a/b","x":"' + b"x" * MAX_BODY_BYTES + b'"}', None),
        (b'{"source":' + b"[" * 100_000, None),
        (b"\xff", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_source_is_read_whatever_else_is_wrong(raw: bytes, source: str | None) -> None:
    """A valid source of an otherwise invalid message is read."""
    assert source_of(raw) == source


@given(st.binary(max_size=200))
def test_source_of_an_unreadable_body_is_none(noise: bytes) -> None:
    """The flood guard reads the source of every dead letter."""
    assert source_of(noise + b'"source"') is None


def test_an_error_names_the_field_and_the_rule() -> None:
    """An operator who reads the dead letter learns what to correct, without the value."""
    with pytest.raises(InvalidEventError) as caught:
        read_event(body(data={"status": "unsure", "token_count": -1}), [ToolExecuted])

    assert str(caught.value) == (
        "data.status: must be 'succeeded' or 'failed'; data.token_count: must be at least 0"
    )


def test_error_of_many_faults_stays_short() -> None:
    """The text travels in a message header."""
    message = json.dumps({"specversion": "1.0", "type": "tool.executed.v1", "data": {}}).encode()
    with pytest.raises(InvalidEventError) as caught:
        read_event(message, [ToolExecuted])

    assert len(str(caught.value)) < 500
