"""Data made from schemas: what a release describes is read here, what we write it describes."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nexus_contracts import ALL_EVENTS, read_event
from nexus_contracts.schemas import schema_of
from nexus_contracts.shapes import Kind, Shape, shape_of

RELEASED = sorted((Path(__file__).parent.parent / "released").glob("*/schemas/*.json"))
KINDS = {data.TYPE: data for data in ALL_EVENTS}

characters = st.characters(codec="utf-8")
texts = st.text(characters, max_size=20)

# No schema says that times are of the years 1970 to 9998; the rule is older than the first release.
moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the time zone
    datetime(9998, 12, 30),  # noqa: DTZ001 - likewise
    timezones=st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
).map(datetime.isoformat)
FORMATS: Mapping[str, st.SearchStrategy[str]] = {
    "date-time": moments,
    "uuid": st.uuids().map(str) | st.uuids().map(str).map(str.upper),
}


def values_of(shape: Shape) -> st.SearchStrategy[object]:
    """Return values of a shape, of each of its kinds."""
    return st.one_of(
        [
            _MAKERS[kind.type](kind) if kind.values is None else st.sampled_from(kind.values)
            for kind in shape
        ]
    )


def _strings(kind: Kind) -> st.SearchStrategy[str]:
    low, high = kind.limits.get("minLength", 0), kind.limits.get("maxLength", 1000)
    if "format" in kind.texts:
        return FORMATS[kind.texts["format"]]
    if "pattern" not in kind.texts:
        return st.text(characters, min_size=low, max_size=high)
    # Python's `$` also matches before a last line break, and JSON Schema's does not.
    pattern = kind.texts["pattern"].removesuffix("$") + r"\Z"
    made = st.from_regex(pattern, alphabet=characters)
    return made.filter(lambda text: low <= len(text) <= high)


def _objects(kind: Kind) -> st.SearchStrategy[object]:
    fields = {name: values_of(each.shape) for name, each in kind.fields.items()}
    if fields:
        optional = {name: each for name, each in fields.items() if name not in kind.required}
        return st.fixed_dictionaries(
            {name: fields[name] for name in kind.required}, optional=optional
        )
    names = _strings(kind.names[0]) if kind.names else texts
    further = texts if kind.further is None else values_of(kind.further)
    for pattern, shape in kind.by_pattern.items():
        by_pattern = Kind(
            "string", limits={"minLength": 1, "maxLength": 200}, texts={"pattern": pattern}
        )
        names, further = _strings(by_pattern), values_of(shape)
    return st.dictionaries(names, further, max_size=3)


_MAKERS: Mapping[str, Callable[[Kind], st.SearchStrategy[object]]] = {
    "string": _strings,
    "object": _objects,
    "integer": lambda kind: st.integers(kind.limits.get("minimum"), kind.limits.get("maximum")),
    "number": lambda _kind: st.floats(allow_nan=False, allow_infinity=False),
    "boolean": lambda _kind: st.booleans(),
    "null": lambda _kind: st.none(),
    "array": lambda _kind: st.lists(texts | st.integers() | st.none(), max_size=3),
}

by_release = pytest.mark.parametrize(
    "path", RELEASED, ids=[f"{path.parts[-3]} {path.stem}" for path in RELEASED]
)


@by_release
@settings(max_examples=60)
@given(source=st.data())
def test_whatever_a_released_schema_describes_is_read(path: Path, source: st.DataObject) -> None:
    """No message that a publisher validated by a release's schema becomes a dead letter."""
    released = json.loads(path.read_text(encoding="utf-8"))
    written = source.draw(values_of(shape_of(released)))
    assert isinstance(written, dict)
    Draft202012Validator(released).validate(written)

    event = read_event(json.dumps(written).encode(), [KINDS[path.stem]])

    assert event.id == UUID(written["id"])
    assert event.source == written["source"]
    assert event.time == datetime.fromisoformat(written["time"])
    read = event.data.model_dump(mode="json")
    plain = {name: each for name, each in written["data"].items() if isinstance(each, int)}
    assert {name: read[name] for name in plain} == plain


@by_release
@settings(max_examples=60)
@given(source=st.data())
def test_whatever_we_write_satisfies_each_released_schema(
    path: Path, source: st.DataObject
) -> None:
    """A process of a release reads on while newer ones publish."""
    released = json.loads(path.read_text(encoding="utf-8"))
    writes = schema_of(KINDS[path.stem], mode="serialization")

    written = source.draw(values_of(shape_of(writes)))

    Draft202012Validator(released).validate(written)
