"""Refusals of HTTP APIs."""

import json

from nexus_contracts.wording import BrokenRule
from nexus_service.problems import UNAUTHORIZED, Code, Fault, Problem


def test_a_problem_has_what_a_client_needs() -> None:
    """Status and code, and each fault at its place."""
    faults = [Fault(BrokenRule("time", "is missing"), 3), Fault(BrokenRule("body", "is not JSON"))]
    problem = Problem(Code.INVALID, "nothing was published", faults)

    assert json.loads(problem.body()) == {
        "title": "Bad Request",
        "status": 400,
        "code": "invalid",
        "detail": "nothing was published",
        "errors": [
            {"index": 3, "field": "time", "rule": "is missing"},
            {"field": "body", "rule": "is not JSON"},
        ],
    }
    assert problem.headers == {}


def test_a_problem_says_when_and_how_to_try_again() -> None:
    """By the headers that HTTP has for it."""
    assert Problem(Code.RATE_LIMITED, "", retry_after=7).headers == {"Retry-After": "7"}
    assert UNAUTHORIZED.headers == {"WWW-Authenticate": "Bearer"}


def test_every_code_has_a_status() -> None:
    """One without would be an error while another is answered."""
    assert all(400 <= Problem(code, "").status < 600 for code in Code)
