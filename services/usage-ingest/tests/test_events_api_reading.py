"""What the events API makes of a request's headers and body."""

import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import MAX_BODY_BYTES, read_event
from nexus_messaging.message import Message
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_service.api_keys import FULL_BATCH, ApiKey
from nexus_service.problems import Code, ProblemError
from usage_ingest.events_api.reading import (
    Form,
    Refused,
    bodies_of,
    form_of,
    problem_of,
    read_message,
)

ANY = ApiKey("any", "", ("*",), ("*",))
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACE = "00-11111111111111111111111111111111-2222222222222222-01"
SECRET = "s3cret-value"

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just(SECRET),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def run(**fields: Any) -> dict[str, Any]:
    """Return a valid tool run as a client sends it; ``fields`` replace some of it."""
    data = {
        "user_id": str(uuid4()),
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "hub",
        "status": "succeeded",
    }
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "hub",
        "type": "tool.executed.v1",
        "time": "2026-03-01T12:00:00Z",
        "data": data,
        **fields,
    }


def encoded(value: object) -> bytes:
    """Return ``value`` in JSON."""
    return json.dumps(value).encode()


def refusal(body: bytes, form: Form = Form.BATCH) -> ProblemError:
    """Return the error of a request whose body can't be split into events."""
    with pytest.raises(ProblemError) as refused:
        bodies_of(form, {}, body)
    return refused.value


def test_all_events_from_outside_are_accepted_and_no_others() -> None:
    """A new major version of one is accepted as soon as the contracts have it."""
    types = {data.TYPE for data in OUTSIDE_EVENTS}

    assert {"tool.executed.v1", "user.created.v1"} <= types
    assert not {each for each in types if each.startswith(("usage.", "customer."))}


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({"content-type": "application/cloudevents+json"}, Form.STRUCTURED),
        ({"content-type": "Application/CloudEvents+JSON; charset=UTF-8"}, Form.STRUCTURED),
        ({"content-type": "application/cloudevents-batch+json"}, Form.BATCH),
        ({"content-type": 'application/json;charset="utf-8"'}, Form.PLAIN),
        ({"content-type": "application/json", "content-encoding": "identity"}, Form.PLAIN),
        ({"content-type": "application/json", "ce-id": "1"}, Form.BINARY),
        ({}, None),
        ({"content-type": "text/plain"}, None),
        ({"content-type": "application/json; charset=utf-16"}, None),
        ({"content-type": "application/json", "content-encoding": "gzip"}, None),
    ],
)
def test_the_form_follows_from_the_headers(headers: dict[str, str], form: Form | None) -> None:
    """Any other media type, coding or character set is refused."""
    if form is not None:
        assert form_of(headers) is form
        return
    with pytest.raises(ProblemError) as refused:
        form_of(headers)
    assert refused.value.problem.status == 415


@given(st.lists(JSON, max_size=5), st.sampled_from([None, 1]))
def test_a_batch_is_split_into_its_elements(elements: list[object], indent: int | None) -> None:
    """Each keeps its meaning, also where strict parsers refuse it, such as NaN."""
    bodies = bodies_of(Form.BATCH, {}, json.dumps(elements, indent=indent).encode())

    assert [repr(json.loads(each)) for each in bodies] == [repr(each) for each in elements]


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(body: bytes) -> None:
    """A refusal is a 400, and no other error comes."""
    statuses = set()
    for form in Form:
        try:
            bodies_of(form, {"ce-id": "\xff%ff"}, body)
        except ProblemError as error:
            statuses.add(error.problem.status)

    assert statuses <= {400}


@pytest.mark.parametrize(
    ("body", "index", "rule"),
    [
        (b"{}", None, "must be a JSON array of events"),
        (b"\xff", None, "is not UTF-8"),
        (b"", None, "must be a JSON array of events"),
        (b"[1] 2", None, "has more after its array"),
        (b"[1, 2, x]", 2, "is not JSON"),
        (b"[1 2]", 1, "is not JSON"),
        (b"[1,", 1, "is not JSON"),
        (b"[1, " + b"[" * 100_000 + b"]", 1, "is nested too deeply"),
    ],
)
def test_a_body_that_is_no_array_is_refused_at_its_place(
    body: bytes, index: int | None, rule: str
) -> None:
    """The index is that of the first event that can't be read."""
    [fault] = refusal(body).problem.faults

    assert (fault.index, rule in fault.broken.rule) == (index, True)


def test_a_batch_has_a_thousand_events_at_most() -> None:
    """One more is 413, and no more is read."""
    assert len(bodies_of(Form.BATCH, {}, encoded([0] * FULL_BATCH))) == 1000

    problem = refusal(encoded([0] * (FULL_BATCH + 1))).problem

    assert (problem.status, problem.code) == (413, Code.TOO_LARGE)


@given(JSON)
def test_any_json_is_an_event_or_refused_by_field_and_rule(value: object) -> None:
    """The answer shows no value of the request."""
    read = read_message(encoded(value), ANY, None)

    assert isinstance(read, Refused)
    assert read.broken
    assert SECRET.encode() not in problem_of({0: read}).body()


@given(
    st.lists(
        st.sampled_from(["good", "bad"]) | st.tuples(st.sampled_from(list(run())), JSON),
        max_size=8,
    )
)
def test_every_bad_index_is_named(kinds: list[Any]) -> None:
    """And no good one; an event with any value in any field is good or bad, and never an error."""
    read = []
    for kind in kinds:
        event = run() if kind == "good" else run(**dict([kind])) if kind != "bad" else run(id="x")
        read.append(read_message(encoded(event), ANY, None))
    refused = {index: each for index, each in enumerate(read) if isinstance(each, Refused)}
    body = json.loads(problem_of(refused).body()) if refused else {"errors": []}

    assert {fault["index"] for fault in body["errors"]} == set(refused)
    assert {i for i, kind in enumerate(kinds) if kind == "bad"} <= set(refused)
    assert not {i for i, kind in enumerate(kinds) if kind == "good"} & set(refused)


def test_unreadable_metadata_refuse_no_event() -> None:
    """As on the broker, the bytes pass unchanged, and the ledger leaves the metadata out."""
    deep, long = b"[" * 300 + b"]" * 300, b"1" * 5000
    bad = b'{"half":"\\ud800","deep":%b,"long":%b}' % (deep, long)
    body = encoded(run())[:-2] + b',"metadata":' + bad + b"}}"

    [split] = bodies_of(Form.PLAIN, {}, b"[" + body + b"]")
    read = read_message(split, ANY, None)

    assert isinstance(read, Message)
    assert read.body == body
    assert read_event(read.body, OUTSIDE_EVENTS).left_out


@pytest.mark.parametrize("own", [None, "unreadable", OTHER_TRACE])
def test_a_trace_of_the_request_is_the_event_s_if_it_has_none(own: str | None) -> None:
    """The event's own comes first."""
    read = read_message(encoded(run(traceparent=own)), ANY, TRACE)

    assert isinstance(read, Message)
    kept = OTHER_TRACE if own == OTHER_TRACE else TRACE
    assert read_event(read.body, OUTSIDE_EVENTS).traceparent == kept


def test_an_event_of_the_largest_size_stays_readable() -> None:
    """A trace context that would make it too large is left out; one byte more is 413."""
    size = len(encoded(run(unknown="")))
    largest = encoded(run(unknown="x" * (MAX_BODY_BYTES - size)))

    read = read_message(largest, ANY, TRACE)
    larger = read_message(largest + b" ", ANY, None)

    assert isinstance(read, Message)
    assert read.body == largest
    assert isinstance(larger, Refused)
    assert problem_of({0: larger}).status == 413


def test_a_key_publishes_its_sources_and_types_only() -> None:
    """403 with every index; a 400 for others does not name it: clients drop what a 400 names."""
    key = ApiKey("web", "", ("web",), ("user.created",))
    foreign, invalid = read_message(encoded(run()), key, None), read_message(b"{}", key, None)

    assert isinstance(foreign, Refused)
    assert isinstance(invalid, Refused)
    assert [each.field for each in foreign.broken] == ["source", "type"]
    assert problem_of({0: foreign, 3: foreign}).status == 403
    assert {fault.index for fault in problem_of({0: foreign, 3: foreign}).faults} == {0, 3}
    assert problem_of({0: foreign, 1: invalid}).status == 400
    assert {fault.index for fault in problem_of({0: foreign, 1: invalid}).faults} == {1}


@given(st.text(), st.sampled_from(["source", "id", "subject", "data", "type"]))
def test_attributes_of_binary_mode_stay_in_their_fields(value: str, name: str) -> None:
    """Neither a header nor the data can write another field of the envelope."""
    header = value.encode().decode("latin-1")

    [body] = bodies_of(Form.BINARY, {f"ce-{name}": header, "ce-kind": "own"}, b'{"a": 1}')

    event = json.loads(body)

    assert (event["kind"], event["data"]) == ("own", {"a": 1})
    assert body.count(b'"data"') == 1
    for data in (b'{}, "kind": "foreign"', b'1}, {"kind": "foreign"', b"1, 2", b""):
        assert refusal(data, Form.BINARY).problem.status == 400
