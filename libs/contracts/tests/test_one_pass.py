"""Reading in one pass gives the event, or the error, that two passes give."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fuzz.bodies import BODY_MUTATIONS, Origin
from fuzz.values import NUMBERS, WORDS
from nexus_contracts import (
    ALL_EVENTS,
    MAX_BODY_BYTES,
    TOOL_EXECUTED_VERSIONS,
    ContractError,
    EventData,
    read_event,
)
from nexus_contracts.envelope import _read_in_one_pass, _read_in_two_passes

GOLDEN = Path(__file__).parent / "golden"
VALID: dict[str, Any] = json.loads((GOLDEN / "tool.executed.v2.full.json").read_text("utf-8"))
ACCEPTED: Sequence[Sequence[type[EventData]]] = (
    ALL_EVENTS,
    TOOL_EXECUTED_VERSIONS,
    *([kind] for kind in ALL_EVENTS),
)
"""The kinds that are read together: by the reporter's answers, for example, two."""

SEED = 20261130
SOME = 4_000
MANY = 60_000
LONG = 20_000
"""Bytes of a body that takes a parser long to refuse."""


def outcome(read: Any, body: bytes, accepted: Sequence[type[EventData]]) -> object:
    """Return all that a reader of ``body`` can notice."""
    try:
        event = read(body, accepted)
    except ContractError as error:
        return type(error), str(error), error.broken
    fields = (event.model_fields_set, event.data.model_fields_set)
    return type(event), event, event.left_out, fields, repr(event), event.body()


def assert_read_alike(body: bytes, accepted: Sequence[type[EventData]]) -> None:
    """Assert that it does not matter in how many passes ``body`` is read."""
    expected = outcome(_read_in_two_passes, body, accepted)

    assert outcome(read_event, body, accepted) == expected, body[:2000]


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _written(text: bytes, *, within: dict[str, Any] | None = None) -> bytes:
    """Return the valid message with a field that nobody reads, written as ``text``."""
    event = {**VALID, "data": {**VALID["data"]}}
    (event["data"] if within is VALID["data"] else event)["x"] = "@@"
    return _dump(event).replace(b'"@@"', text)


def _without(name: str) -> bytes:
    return _dump({key: value for key, value in VALID.items() if key != name})


def _first(name: str, value: object, event: dict[str, Any] = VALID) -> bytes:
    """Return ``event`` with a field before it, as if the same key came twice."""
    return b"{" + _dump({name: value})[1:-1] + b"," + _dump(event)[1:]


def _last(name: str, value: object) -> bytes:
    return _dump(VALID)[:-1] + b"," + _dump({name: value})[1:]


DOUBTS = {
    "nan in an ignored field": _written(b"NaN"),
    "infinity in an ignored field": _written(b"[{}, -Infinity]"),
    "nan in ignored data": _written(b'{"a": NaN}', within=VALID["data"]),
    "infinity in ignored data": _written(b"Infinity", within=VALID["data"]),
    "nan as text": _written(b'"NaN Infinity"'),
    "too large a number": _written(b"1e400"),
    "many digits": _written(b"9" * 5000),
    "half a surrogate pair": _written(rb'"\ud800"'),
    "no UTF-8": _written(b'"\xff"'),
    "no specversion": _without("specversion"),
    "no type": _without("type"),
    "another specversion": _dump(VALID | {"specversion": "0.3"}),
    "specversion of null": _dump(VALID | {"specversion": None}),
    "specversion twice, last right": _first("specversion", "0.3"),
    "specversion twice, last wrong": _last("specversion", "0.3"),
    "type twice, another first": _first("type", "tool.executed.v1"),
    "type twice, another last": _last("type", "tool.executed.v1"),
    "type twice, last unknown": _last("type", "tool.executed.v9"),
    "type twice, last no text": _last("type", 7),
    "data twice": _last("data", {"user_id": 7}),
    "type in ignored data first": _first("x", {"type": "tool.executed.v1"}),
    "type as text first": _first("x", '"type":"tool.executed.v1"'),
    "type escaped": _dump(VALID).replace(b"tool.executed", rb"tool\u002eexecuted"),
    "key of type escaped": _dump(VALID).replace(b'"type"', rb'"\u0074ype"'),
    "byte order mark": b"\xef\xbb\xbf" + _dump(VALID),
    "spaces": json.dumps(VALID, indent=8).encode() + b" \r\n\t",
    "two bodies": _dump(VALID) * 2,
    "no object": b"[" + _dump(VALID) + b"]",
    "metadata of infinity": _dump(VALID | {"data": VALID["data"] | {"metadata": {"a": 1e999}}}),
    "metadata of a list": _dump(VALID | {"data": VALID["data"] | {"metadata": []}}),
    **{f"{n} levels": _written(b"[" * n + b"]" * n) for n in range(195, 205)},
    **{
        f"{n} levels in data": _written(b'{"a":' * n + b"1" + b"}" * n, within=VALID["data"])
        for n in range(195, 205)
    },
}


@pytest.mark.parametrize("accepted", [TOOL_EXECUTED_VERSIONS, ALL_EVENTS], ids=len)
@pytest.mark.parametrize("doubt", DOUBTS)
def test_unusual_body_is_read_as_in_two_passes(
    doubt: str, accepted: Sequence[type[EventData]]
) -> None:
    """What a validation alone would read otherwise, and what it might."""
    assert_read_alike(DOUBTS[doubt], accepted)


def _bodies(rng: random.Random, number: int) -> Iterator[bytes]:
    """Yield golden messages of every kind with one mutation, or with two; few of them are long."""
    goldens = [json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))]
    for _ in range(number):
        origin = Origin(rng.choice(goldens), rng.choice(goldens))
        body = rng.choice((*BODY_MUTATIONS, _ignored, _repeated, _named_before))(rng, origin)
        if body and len(body) < 5_000 and rng.random() < 0.15:
            at = rng.randrange(len(body))
            body = body[:at] + rng.choice((b"", b'"', b"\\", b"{", b"N", b"\x00")) + body[at + 1 :]
        if len(body) < LONG or rng.random() < 0.1:
            yield body[:MAX_BODY_BYTES]


def _ignored(rng: random.Random, origin: Origin) -> bytes:
    """Write anything into a field that no version has."""
    event = {**origin.event, "data": {**origin.event["data"]}}
    place = rng.choice((event, event["data"]))
    place["ignored"] = rng.choice(("@@", ["@@", {"a": "@@"}], {"a": {"b": "@@"}}))
    return _dump(event).replace(b'"@@"', rng.choice((*NUMBERS, *WORDS)))


def _repeated(rng: random.Random, origin: Origin) -> bytes:
    """Repeat a key of the data or of the envelope with the value of another message."""
    data = rng.choice((origin.event["data"], origin.event))
    key = rng.choice([*data, "type", "specversion"])
    value = rng.choice((data.get(key), origin.other.get(key), origin.other["data"].get(key)))
    body, written = _dump(origin.event), _dump(data)
    twice = _dump({key: value})[1:-1]
    if rng.random() < 0.5:
        return body.replace(written, b"{" + twice + b"," + written[1:])
    return body.replace(written, written[:-1] + b"," + twice + b"}")


def _named_before(rng: random.Random, origin: Origin) -> bytes:
    """Write the type of another message before this one's."""
    name = rng.choice(("type", "x", "extra"))
    value = rng.choice((origin.other["type"], {"type": origin.other["type"]}, '"type":"x"'))
    return _first(name, value, origin.event)


@pytest.mark.parametrize(
    "number",
    [SOME, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(590)])],
)
def test_mutated_bodies_are_read_as_in_two_passes(number: int) -> None:
    """Bodies of every kind, damaged or unusual in every way that the fuzz tests know."""
    rng = random.Random(SEED + number)  # noqa: S311 - repeatable, not secret
    in_one = 0

    for body in _bodies(rng, number):
        accepted = rng.choice(ACCEPTED[:2] if rng.random() < 0.8 else ACCEPTED)
        assert_read_alike(body, accepted)
        in_one += _read_in_one_pass(body, accepted) is not None

    assert in_one > number / 10


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_message_is_read_in_one_pass(golden: Path) -> None:
    """The fast way is taken by every valid message, so its comparison with the other means much."""
    event = json.loads(golden.read_text("utf-8"))

    assert _read_in_one_pass(_dump(event), ALL_EVENTS) is not None
    assert _read_in_one_pass(json.dumps(event, indent=2).encode(), ALL_EVENTS) is not None
