"""Descriptions of validation errors are in words and hold no value."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from nexus_contracts import ALL_EVENTS, CallRecord, CallRecordsEnd
from nexus_contracts.fields import Moment
from nexus_contracts.wording import describe, rule

KINDS: list[type[BaseModel]] = [*ALL_EVENTS, CallRecord, CallRecordsEnd]
MARK = "s3cret@example.com"

CASES: list[tuple[Any, Any, str]] = [
    (str, 1, "must be text"),
    (int, 1.5, "must be a whole number"),
    (bool, "x", "must be true or false"),
    (Literal["a", "b"], MARK, "must be 'a' or 'b'"),
    (Annotated[str, Field(min_length=2)], "", "must have at least 2 characters"),
    (Annotated[str, Field(max_length=2)], MARK, "must have at most 2 characters"),
    (Annotated[int, Field(ge=0)], -1, "must be at least 0"),
    (Annotated[int, Field(gt=0)], 0, "must be more than 0"),
    (Annotated[int, Field(le=9)], 10, "must be at most 9"),
    (Annotated[UUID, Field(strict=True)], MARK, "must be a UUID"),
    (Moment, "2026-03-01", "must be a time as RFC 3339 writes it: 2026-03-01T12:00:00Z"),
    (Moment, "2026-03-01T12:00", "must say how far it is from UTC: 2026-03-01T12:00:00Z"),
    (Moment, "1969-03-01T12:00Z", "must be a time from 1970 on and before 9999"),
]


@pytest.mark.parametrize(("kind", "value", "text"), CASES, ids=[case[2] for case in CASES])
def test_broken_rule_is_described_in_words_with_its_limit(kind: Any, value: Any, text: str) -> None:
    """The limit is the contract's; the value is the sender's and stays out."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)

    assert describe(caught.value) == f"body: {text}"


def test_description_of_a_rule_holds_no_name_of_pydantic() -> None:
    """Whichever rule a field may get one day, people read words."""
    context = {"min_length": 1, "max_length": 1, "gt": 0, "ge": 0, "lt": 0, "le": 0}
    for kind in get_args(ErrorType):
        detail = ErrorDetails(
            type=kind, loc=(), msg="", input=None, ctx={**context, "expected": "'a'"}
        )

        assert re.fullmatch(r"(is|must|breaks) [^_]+", rule(detail)), kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_pattern_of_a_contract_has_words(kind: type[BaseModel]) -> None:
    """A regular expression says nothing to most people."""
    for pattern in patterns(kind.model_json_schema()):
        with pytest.raises(ValidationError) as caught:
            TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python("\x00 ")

        assert pattern not in describe(caught.value)


@given(st.sampled_from(KINDS), st.recursive(st.just(MARK) | st.integers(), st.lists))
def test_description_of_an_error_holds_no_value(kind: type[BaseModel], value: object) -> None:
    """It may be an e-mail address."""
    body = json.dumps(dict.fromkeys(kind.model_fields, value))
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(body)

    assert MARK not in describe(caught.value)


def patterns(schema: object) -> Iterator[str]:
    """Yield every pattern of a JSON schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from patterns(each)
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for each in schema.values():
            yield from patterns(each)
