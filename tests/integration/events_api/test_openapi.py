"""schemathesis holds the running API against docs/openapi.json."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from .conftest import KEY, Api

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"

STRICTER = {
    "must be a time from 1970 on and before 9999",
    "must be a whole number",
    "must be an e-mail address",
}
"""Rules that a JSON Schema can't say: a range of times, that 1.0 is no whole number, and which of
Unicode's characters are white space, where regular expressions differ."""

EXCLUDED: list[CheckFunction] = [
    positive_data_acceptance,  # see STRICTER
    negative_data_rejection,  # a wrong traceparent or wrong metadata are left out, by contract
]


def wrong_rules(problem: dict[str, Any]) -> set[str]:
    """Return the rules that an answer names."""
    return {each["rule"] for each in problem["errors"]}


@pytest.fixture(scope="module")
def operation() -> APIOperation[Any, Any, Any, Any]:
    """Return the document's operation; loading it imports modules, so it is done in no thread."""
    return schemathesis.openapi.from_path(DOCUMENT)["/v1/events"]["POST"]


def conforms(
    operation: APIOperation[Any, Any, Any, Any], url: str, mode: GenerationMode, examples: int
) -> int:
    """Send random requests that fit the schema, or break it; return how many were sent.

    Raises:
        FailureGroup: an answer is not as the document says.
    """
    headers, sent = {"Authorization": f"Bearer {KEY}"}, 0

    with requests.Session() as session:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to shrink a failure takes minutes
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Case[Any]) -> None:
            nonlocal sent
            sent += 1
            answer = case.call(base_url=url, session=session, headers=headers)
            case.validate_response(answer, headers=headers, excluded_checks=EXCLUDED)
            if mode is GenerationMode.POSITIVE:
                assert answer.status_code == 202 or wrong_rules(answer.json()) <= STRICTER

        check()
    return sent


@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_random_requests_are_answered_as_documented(
    api: Api, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    """Never a 500; every status, header and body is in the document."""
    assert await asyncio.to_thread(conforms, operation, api.url, mode, 50) >= 50


@pytest.mark.long
@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_thousands_of_random_requests_are_answered_as_documented(
    api: Api, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    """The same at length."""
    assert await asyncio.to_thread(conforms, operation, api.url, mode, 1500) >= 1000
