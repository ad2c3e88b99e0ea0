"""schemathesis holds the running API against docs/usage-openapi.json."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from support.usage_ledger import UsageLedger

from .conftest import KEY, Api

DOCUMENT = Path(__file__).parents[3] / "docs" / "usage-openapi.json"
PATHS = ("/v1/usage", "/v1/entitlements/{user_id}")

EXCLUDED: list[CheckFunction] = [
    positive_data_acceptance,  # a schema can't say that a span is in order and not too long
    negative_data_rejection,  # parameters that are not known are ignored
]

Operation = APIOperation[Any, Any, Any, Any]


@pytest.fixture(scope="module")
def operations() -> dict[str, Operation]:
    """Return the document's operations; loading them imports modules, so it is in no thread."""
    document = schemathesis.openapi.from_path(DOCUMENT)
    return {path: document[path]["GET"] for path in PATHS}


def conforms(
    operation: Operation, url: str, token: str, mode: GenerationMode, examples: int
) -> set[int]:
    """Send random requests that fit the schema, or break it; return the statuses of the answers.

    Raises:
        FailureGroup: an answer is not as the document says.
    """
    headers, statuses = {"Authorization": f"Bearer {token}"}, set[int]()

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
            answer = case.call(base_url=url, session=session, headers=headers)
            case.validate_response(answer, headers=headers, excluded_checks=EXCLUDED)
            statuses.add(answer.status_code)

        check()
    return statuses


@pytest.fixture
async def user(ledger: UsageLedger) -> UUID:
    """Return a user with something of everything."""
    user = uuid4()
    await ledger.subscribe(user, "pro", seats=2)
    await ledger.runs(user, 2)
    await ledger.runs(user, 1, state="waiting")
    await ledger.report(user, 5)
    await ledger.report(user, 5, state="rejected", reason="customer_deleted")
    return user


@pytest.mark.parametrize("path", PATHS)
async def test_random_requests_are_answered_as_documented(
    api: Api, user: UUID, operations: dict[str, Operation], path: str
) -> None:
    """Never a 500; every status, header and body is in the document."""
    statuses = set[int]()
    for token in (KEY, api.signer.token(user)):
        for mode in GenerationMode:
            operation = operations[path]
            statuses |= await asyncio.to_thread(conforms, operation, api.url, token, mode, 15)

    assert statuses & {200, 400}


async def test_answers_with_content_are_as_documented(
    api: Api, user: UUID, operations: dict[str, Operation]
) -> None:
    """The answers about a user with something of everything, and that the tag still stands."""
    token = api.signer.token(user)

    def ask() -> list[int]:
        statuses = []
        for operation in operations.values():
            named = {"user_id": str(user)} if "{" in operation.path else {}
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(2):
                case = operation.Case(path_parameters=named)
                answer = case.call(base_url=api.url, headers=headers)
                case.validate_response(answer, headers=headers, excluded_checks=EXCLUDED)
                statuses.append(answer.status_code)
                headers["If-None-Match"] = answer.headers["etag"][0]
        return statuses

    assert await asyncio.to_thread(ask) == [200, 304, 200, 304]
