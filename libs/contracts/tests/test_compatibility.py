"""Every kind of break of a released contract is caught, and what is no break is not."""

import copy
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

import pytest
from pydantic import Field

from nexus_contracts import EventData, ToolExecutedV1, UsageRecordedV1
from nexus_contracts.compatibility import Contract, breaks
from nexus_contracts.fields import BILLED, MAX_TOKENS, JsonMediaType, Text
from nexus_contracts.releases import contract_of
from nexus_contracts.schemas import schema_of

Change = Callable[[dict[str, Any]], object]

RELEASED = schema_of(ToolExecutedV1)


def found(change: Change, *, released: Any = RELEASED) -> list[str]:
    """Return what breaks if a checkout differs from the released schema by ``change`` alone."""
    candidate = copy.deepcopy(released)
    change(candidate)
    contract = Contract("tool.executed.v1", reads=candidate, writes=candidate)
    return list(breaks(contract, released, "0.1.0"))


def data(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a schema that is the event's own."""
    part: dict[str, Any] = schema["$defs"]["ToolExecutedV1"]
    return part


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of the event's own data."""
    properties: dict[str, Any] = data(schema)["properties"]
    return properties


def tokens(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that `token_count` takes."""
    rules: dict[str, Any] = fields(schema)["token_count"]["anyOf"][0]
    return rules


def require_region(schema: dict[str, Any]) -> None:
    """Add a field that every event must have."""
    fields(schema)["region"] = {"type": "string"}
    data(schema)["required"].append("region")


BREAKS: dict[str, tuple[Change, str]] = {
    "removed field": (
        lambda schema: fields(schema).pop("metadata"),
        "data.metadata: removed; release 0.1.0 has it",
    ),
    "removed field of the envelope": (
        lambda schema: schema["properties"].pop("traceparent"),
        "traceparent: removed; release 0.1.0 has it",
    ),
    "newly required field": (
        require_region,
        (
            "data.region: required: release 0.1.0 writes events without it,"
            " this checkout reads none without it"
        ),
    ),
    "field no longer required": (
        lambda schema: data(schema)["required"].remove("origin"),
        (
            "data.origin: required: this checkout writes events without it,"
            " release 0.1.0 reads none without it"
        ),
    ),
    "another type": (
        lambda schema: fields(schema)["origin"].update(type="integer", enum=[1, 2]),
        "data.origin: type: release 0.1.0 writes string, this checkout reads integer",
    ),
    "null no longer read": (
        lambda schema: fields(schema)["metadata"]["anyOf"].pop(),
        "data.metadata: type: release 0.1.0 writes null, this checkout reads object",
    ),
    "null newly written": (
        lambda schema: fields(schema)["server_id"].update(type=["string", "null"]),
        "data.server_id: type: this checkout writes null, release 0.1.0 reads string",
    ),
    "narrowed enum": (
        lambda schema: fields(schema)["origin"]["enum"].remove("job"),
        'data.origin: value: release 0.1.0 writes "job", this checkout reads "direct" or "hub"',
    ),
    "widened enum": (
        lambda schema: fields(schema)["origin"]["enum"].append("cron"),
        (
            'data.origin: value: this checkout writes "cron",'
            ' release 0.1.0 reads "direct" or "hub" or "job"'
        ),
    ),
    "enum in place of any text": (
        lambda schema: fields(schema)["server_id"].update(enum=["weather"]),
        'data.server_id: enum: release 0.1.0 writes any string, this checkout reads "weather"',
    ),
    "narrowed maximum": (
        lambda schema: tokens(schema).update(maximum=1000),
        f"data.token_count: maximum: release 0.1.0 writes {MAX_TOKENS}, this checkout reads 1000",
    ),
    "widened maximum": (
        lambda schema: tokens(schema).pop("maximum"),
        f"data.token_count: maximum: this checkout writes any, release 0.1.0 reads {MAX_TOKENS}",
    ),
    "narrowed minimum": (
        lambda schema: tokens(schema).update(exclusiveMinimum=0),
        "data.token_count: minimum: release 0.1.0 writes 0, this checkout reads 1",
    ),
    "narrowed length": (
        lambda schema: fields(schema)["tool_name"].update(maxLength=100),
        "data.tool_name: maxLength: release 0.1.0 writes 200, this checkout reads 100",
    ),
    "another pattern": (
        lambda schema: fields(schema)["tool_name"].update(pattern="^[a-z]+$"),
        (
            "data.tool_name: pattern: release 0.1.0 writes ^[^\\x00-\\x1f\\x7f]+$,"
            " this checkout reads ^[a-z]+$"
        ),
    ),
    "another format": (
        lambda schema: fields(schema)["server_id"].update(format="uuid"),
        "data.server_id: format: release 0.1.0 writes any, this checkout reads uuid",
    ),
    "narrowed values of a map": (
        lambda schema: schema["$defs"]["JsonValue"].update(type="string"),
        "data.metadata.*: type: release 0.1.0 writes number, this checkout reads string",
    ),
    "closed to unknown fields": (
        lambda schema: data(schema).update(additionalProperties=False),
        "data.*: additionalProperties: release 0.1.0 writes anything, this checkout reads nothing",
    ),
    "another default of a billed field": (
        lambda schema: fields(schema)["token_count"].update(default=1),
        "data.token_count: billed: default changed from null to 1 since release 0.1.0",
    ),
    "another description of a billed field": (
        lambda schema: fields(schema)["user_id"].update(description="Who looks on."),
        (
            'data.user_id: billed: description changed from "The user who is charged."'
            ' to "Who looks on." since release 0.1.0'
        ),
    ),
    "billed field that is no longer marked": (
        lambda schema: fields(schema)["status"].pop("x-billed"),
        "data.status: billed: the mark is gone since release 0.1.0",
    ),
    "keyword that is not understood": (
        lambda schema: fields(schema)["origin"].update({"not": {"enum": ["x"]}}),
        "data.origin: not can't be compared: teach it to nexus_contracts.shapes first",
    ),
    "alternatives beside a rule": (
        lambda schema: fields(schema)["metadata"].update(type="object"),
        (
            "data.metadata: anyOf beside other keywords can't be compared:"
            " teach it to nexus_contracts.shapes first"
        ),
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_break_is_named_with_field_rule_and_release(kind: str) -> None:
    """Whoever made the change reads which field of which contract broke which rule."""
    change, sentence = BREAKS[kind]

    assert f"tool.executed.v1 {sentence}" in found(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda _schema: None,
        lambda schema: fields(schema).update(region={"type": "string"}),
        lambda schema: fields(schema)["origin"].update(description="Whence it came."),
    ],
    ids=["no change", "new optional field", "other words for a field that is not billed"],
)
def test_what_every_release_reads_is_no_break(change: Change) -> None:
    """A gate that fails without a reason is switched off."""
    assert found(change) == []


def test_bound_of_a_billed_field_may_not_even_be_written_otherwise() -> None:
    """Its values stay the same, so that only the rule for billed fields speaks."""

    def write_otherwise(schema: dict[str, Any]) -> None:
        del tokens(schema)["minimum"]
        tokens(schema)["exclusiveMinimum"] = -1

    [sentence] = found(write_otherwise)

    assert " data.token_count: billed: anyOf changed from " in sentence


def test_billed_field_may_get_its_first_description_and_mark() -> None:
    """Releases before the mark had no descriptions: what they promise is in their rules alone."""
    released = copy.deepcopy(RELEASED)
    del fields(released)["token_count"]["x-billed"], fields(released)["token_count"]["description"]

    def mark_and_describe(schema: dict[str, Any]) -> None:
        fields(schema)["token_count"].update({"x-billed": True, "description": "Tokens."})

    def change_its_default(schema: dict[str, Any]) -> None:
        fields(schema)["token_count"].update({"x-billed": True, "default": 0})

    assert found(mark_and_describe, released=released) == []
    assert len(found(change_its_default, released=released)) == 1


def test_names_and_values_of_a_map_are_held() -> None:
    """A report's dimensions are a map from short names to short texts."""
    released = schema_of(UsageRecordedV1)
    candidate = copy.deepcopy(released)
    dimensions = candidate["$defs"]["UsageRecordedV1"]["properties"]["dimensions"]["anyOf"][0]
    dimensions["propertyNames"]["maxLength"] = 10
    [values] = dimensions["patternProperties"].values()
    values["maxLength"] = 20

    sentences = list(breaks(Contract("c", candidate, candidate), released, "0.1.0"))

    rule = "maxLength: release 0.1.0 writes 200, this checkout reads"
    assert f"c data.dimensions (name): {rule} 10" in sentences
    assert f"c data.dimensions.*: {rule} 20" in sentences


class Rated(EventData):
    """A released event."""

    TYPE: ClassVar[str] = "tool.rated.v1"

    user_id: Annotated[UUID, BILLED]
    """Who is charged for it."""
    stars: Annotated[int, Field(ge=1, le=5)]
    kind: Literal["up", "down"]


class RatedLeniently(EventData):
    """It reads `kind` as media types are read, in many forms, and writes it in one."""

    TYPE: ClassVar[str] = "tool.rated.v1"

    user_id: Annotated[UUID, BILLED]
    """Who is charged for it."""
    stars: Annotated[int, Field(ge=1, le=5)]
    kind: Literal["up", "down"]
    form: JsonMediaType = "application/json"
    comment: Text | None = None


class RatedOtherwise(EventData):
    """It has a narrower bound, a wider choice and a required field more."""

    TYPE: ClassVar[str] = "tool.rated.v1"

    user_id: Annotated[UUID, BILLED]
    """Who is charged for it."""
    stars: Annotated[int, Field(ge=1, le=3)]
    kind: Literal["up", "down", "sideways"]
    comment: Text


def test_models_are_compared_by_what_they_read_and_what_they_write() -> None:
    """The gate takes models as they stand in the code."""
    released = contract_of(Rated).reads

    assert list(breaks(contract_of(RatedLeniently), released, "1.0.0")) == []
    assert list(breaks(contract_of(RatedOtherwise), released, "1.0.0")) == [
        (
            "tool.rated.v1 data.comment: required: release 1.0.0 writes events without it,"
            " this checkout reads none without it"
        ),
        "tool.rated.v1 data.stars: maximum: release 1.0.0 writes 5, this checkout reads 3",
        (
            'tool.rated.v1 data.kind: value: this checkout writes "sideways",'
            ' release 1.0.0 reads "up" or "down"'
        ),
    ]


def test_lenient_reading_of_a_released_choice_is_no_break() -> None:
    """What is read in more forms than before is still written in the one that releases read."""
    released = copy.deepcopy(RELEASED)
    released["properties"]["datacontenttype"] = {"const": "application/json", "type": "string"}

    assert list(breaks(contract_of(ToolExecutedV1), released, "0.1.0")) == []
