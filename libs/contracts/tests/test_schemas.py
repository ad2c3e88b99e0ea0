"""The published JSON Schemas agree with the models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nexus_contracts import ALL_EVENTS, ContractError, EventData, read_event
from nexus_contracts.schemas import main, schema_of

SCHEMAS = Path(__file__).parent.parent / "schemas"
GOLDEN = Path(__file__).parent / "golden"


def test_the_published_schemas_are_those_of_the_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A change of a model shows in the files that outside services read."""
    assert main(["--check", str(SCHEMAS)]) == 0, capsys.readouterr().err


def test_stale_missing_and_foreign_files_are_named_and_updated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names every file that is out of date, `--write` brings the folder up to date."""
    assert main(["--write", str(tmp_path)]) == 0
    (tmp_path / "tool.executed.v1.json").write_text("{}", encoding="utf-8")
    (tmp_path / "user.created.v1.json").unlink()
    (tmp_path / "tool.executed.v0.json").write_text("{}", encoding="utf-8")

    assert main(["--check", str(tmp_path)]) == 1
    named = capsys.readouterr().err
    assert main(["--write", str(tmp_path)]) == 0

    assert named.count("out of date") == 3
    assert main(["--check", str(tmp_path)]) == 0


@pytest.mark.parametrize("data", ALL_EVENTS, ids=lambda data: data.TYPE)
def test_a_schema_is_valid_and_takes_its_own_type_only(data: type[EventData]) -> None:
    """Each schema is sound, and refuses an event of another type."""
    schema = schema_of(data)

    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["type"]["const"] == data.TYPE


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"source": ""},
        {"data": {"status": "unsure"}},
        {"data": {"origin": None}},
        {"data": {"tool_name": "x" * 201}},
        {"data": {"server_id": "a\nb"}},
        {"data": {"token_count": -1}},
        {"data": {"token_count": 1.5}},
        {"data": {"token_count": "7"}},
    ],
    ids=str,
)
def test_message_that_the_schema_refuses_is_refused_on_reading(change: dict[str, Any]) -> None:
    """A publisher who validates by the schema learns of the faults that would be dead letters."""
    message = json.loads((GOLDEN / "tool.executed.v1.full.json").read_text(encoding="utf-8"))
    data = message["data"] | change.get("data", {})
    body = message | change | {"data": data}
    kind = next(each for each in ALL_EVENTS if each.TYPE == "tool.executed.v1")

    assert not Draft202012Validator(schema_of(kind)).is_valid(body)
    with pytest.raises(ContractError):
        read_event(json.dumps(body).encode(), [kind])


def parts_without_a_type(schema: Any, path: str) -> Iterator[str]:
    """Yield the path of every part of a schema that says neither a type nor where it says one."""
    if not schema.keys() & {"type", "$ref", "anyOf"}:
        yield path
    for index, each in enumerate(schema.get("anyOf", ())):
        yield from parts_without_a_type(each, f"{path}/{index}")
    for name, each in schema.get("properties", {}).items():
        yield from parts_without_a_type(each, f"{path}/{name}")


@pytest.mark.parametrize("data", ALL_EVENTS, ids=lambda data: data.TYPE)
def test_every_part_of_a_schema_has_a_type(data: type[EventData]) -> None:
    """A generator of TypeScript makes an object of a property without one, and text won't fit."""
    schema = schema_of(data)

    parts = {"body": schema, **schema["$defs"]}
    assert [each for path, part in parts.items() for each in parts_without_a_type(part, path)] == []


@pytest.mark.parametrize("data", ALL_EVENTS, ids=lambda data: data.TYPE)
def test_every_field_of_an_event_is_described(data: type[EventData]) -> None:
    """The description is what a publisher in another language reads, and where meaning is kept."""
    properties = schema_of(data)["$defs"][data.__name__]["properties"]

    assert [name for name, each in properties.items() if "description" not in each] == []
