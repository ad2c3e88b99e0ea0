"""What costs no run: metadata of any kind, a media type as HTTP has them, a leap second."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nexus_contracts import (
    ContractError,
    InvalidEventError,
    ToolExecuted,
    UnreadableError,
    UserCreated,
    read_event,
)
from nexus_contracts.json_nulls import set_null
from nexus_contracts.schemas import schema_of

VALID: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "tool.executed.v1.full.json").read_text("utf-8")
)
PATH = ("data", "metadata")


def with_metadata(written: bytes) -> bytes:
    """Return a valid body with the given metadata between two other fields."""
    data = {**VALID["data"], "metadata": "@@", "token_count": 7}
    return json.dumps(VALID | {"data": data}).encode().replace(b'"@@"', written)


@pytest.mark.parametrize(
    "written",
    [
        rb'{"a": "\ud800"}',
        rb'{"\udc00\ud800": 1}',
        b'{"a": %s}' % (b"9" * 5000),
        b'{"a": %s%s}' % (b"[" * 30_000, b"]" * 30_000),
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"a": NaN, "b": [-Infinity]}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
    ],
    ids=["surrogate", "surrogates", "digits", "arrays", "objects", "nan", "byte", "wtf-8"],
)
def test_unreadable_metadata_is_left_out_of_a_readable_event(written: bytes) -> None:
    """The billed fields are unchanged, and ``left_out`` is set."""
    event = read_event(with_metadata(written), [ToolExecuted])

    assert event.left_out
    assert event.data == read_event(with_metadata(b"null"), [ToolExecuted]).data
    assert event.data.token_count == 7


def test_mark_of_a_left_out_field_is_in_no_body_and_no_repr() -> None:
    """It is about the body that was read, and an event that is sent again has no such field."""
    event = read_event(with_metadata(b"null"), [ToolExecuted])

    marked = event.mark_left_out()

    assert (event.left_out, marked.left_out, marked.model_copy().left_out) == (False, True, True)
    assert (marked.body(), repr(marked)) == (event.body(), repr(event))
    assert marked.model_dump() == event.model_dump()


@pytest.mark.parametrize("written", [b"null", b"{}", b'{"a": 1e400}', rb'{"a": "\u0000"}'])
def test_readable_metadata_is_never_left_out(written: bytes) -> None:
    """Whether it can be stored is decided by the code that stores it."""
    assert not read_event(with_metadata(written), [ToolExecuted]).left_out


@pytest.mark.parametrize(
    "written",
    [b'{"a": "b}', b'{"a": [1 2]}', b'{"a": [1,]}', b'{"a" 1}', b'{"a": 01}', b"{", rb'{"\q": 1}'],
)
def test_a_body_that_breaks_the_grammar_is_no_event(written: bytes) -> None:
    """The end of the metadata is then unknown, and so is the rest of the body."""
    with pytest.raises(UnreadableError):
        read_event(with_metadata(written), [ToolExecuted])


@pytest.mark.parametrize("written", [b"[]", b'[{"a": 1}]', b'"x"', b"7", b"true", b"1e400"])
def test_metadata_that_is_not_an_object_is_left_out(written: bytes) -> None:
    """PHP writes an empty one as a list. The schema refuses it; the run is billed all the same."""
    event = read_event(with_metadata(written), [ToolExecuted])

    assert event.left_out
    assert event.data == read_event(with_metadata(b"null"), [ToolExecuted]).data


def test_only_the_free_form_field_is_left_out() -> None:
    """What is wrong elsewhere still refuses the event."""
    for body in (
        with_metadata(rb'{"a": "\ud800"}').replace(b'"failed"', rb'"\ud800"'),
        with_metadata(rb'{"a": "\ud800"}').replace(b'"failed"', b'"unsure"'),
        with_metadata(b"[]").replace(b'"failed"', b'"unsure"'),
    ):
        with pytest.raises(ContractError):
            read_event(body, [ToolExecuted])
    with pytest.raises(UnreadableError):
        read_event(with_metadata(rb'{"a": "\ud800"}'), [UserCreated])


@given(
    before=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3),
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
    ),
    ascii_only=st.booleans(),
)
def test_only_the_value_at_the_path_is_replaced(
    before: dict[str, Any], value: Any, *, ascii_only: bool
) -> None:
    """Whatever the value and its neighbours hold: brackets in strings, the same name elsewhere."""
    before = {name: each for name, each in before.items() if name not in PATH}
    data = {**before, "metadata": value, "z": '"metadata":{'}
    body = {**before, "metadata": {"metadata": 1}, "data": data, "list": [{"data": data}]}
    written = json.dumps(body, ensure_ascii=ascii_only).encode()

    rest = set_null(written, PATH)

    assert rest is not None
    assert json.loads(rest) == body | {"data": data | {"metadata": None}}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": [{"metadata": 1}]}', b'{"metadata": 1}'])
def test_body_without_a_value_at_the_path_is_unchanged(body: bytes) -> None:
    """The caller then knows that this was not the fault."""
    assert set_null(body, PATH) is None


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8" ; x=y',
        "application/json;",
        "application/vnd.acme.run+json",
        "text/json",
    ],
)
def test_data_of_a_json_media_type_is_read(media_type: str | None) -> None:
    """As HTTP has them: without regard to case or parameters; the schema says the same."""
    body = VALID | {"datacontenttype": media_type}

    event = read_event(json.dumps(body).encode(), [ToolExecuted])

    assert event.datacontenttype == "application/json"
    assert Draft202012Validator(schema_of(ToolExecuted)).is_valid(body)


@pytest.mark.parametrize(
    "media_type",
    [
        *("", "json", "text/plain", "application/jsonx", "application/json+xml", "a b/json", 7, []),
        "application/json" + " ;" * 50_000 + "x",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_data_of_another_media_type_is_refused(media_type: object) -> None:
    """It would be a string of something else; the schema says the same, and soon."""
    body = VALID | {"datacontenttype": media_type}

    with pytest.raises(InvalidEventError, match=r"^datacontenttype: "):
        read_event(json.dumps(body).encode(), [ToolExecuted])
    assert not Draft202012Validator(schema_of(ToolExecuted)).is_valid(body)


@pytest.mark.parametrize(
    "time",
    [
        "2016-12-31T23:59:60Z",
        "2016-12-31t23:59:60.75z",
        "2016-12-31T15:59:60-08:00",
        "2017-01-01T05:29:60.123456789+05:30",
    ],
)
def test_a_leap_second_is_the_last_microsecond_before_it(time: str) -> None:
    """So it stays in its day, its month and its billing period."""
    event = read_event(json.dumps(VALID | {"time": time}).encode(), [ToolExecuted])

    assert event.time == datetime(2016, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


@pytest.mark.parametrize(
    "time",
    [
        "2016-12-31T12:00:60Z",
        "2016-12-30T23:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:60:60Z",
        "2016-12-31T23:59:60",
        "9999-12-31T23:59:60Z",
        "0001-01-01T00:00:60+14:00",
    ],
)
def test_a_second_60_that_ends_no_month_is_refused(time: str) -> None:
    """There are leap seconds nowhere else (RFC 3339, section 5.7)."""
    with pytest.raises(InvalidEventError, match=r"^time: "):
        read_event(json.dumps(VALID | {"time": time}).encode(), [ToolExecuted])
