"""The usage API as OpenAPI 3.1 says it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nexus_service.api_keys import ENTITLEMENTS_READ, USAGE_READ
from nexus_service.problems import CONTENT_TYPE as PROBLEM
from nexus_service.problems import Code, Problem
from usage_ingest.usage_api.http import MAX_AGE
from usage_ingest.usage_api.reading import By
from usage_ingest.usage_api.storage import MAX_ROWS, MAX_WAITING_RUNS
from usage_ingest.usage_api.tokens import ALGORITHMS, AUDIENCE, MAX_LIFETIME_SECONDS
from usage_ingest.usage_api.usage import NO_CUSTOMER, WHY

Part = dict[str, Any]

ABOUT: Final = f"""\
What users may do, and what they have used.

A service asks with a key that names the right `{ENTITLEMENTS_READ}` or `{USAGE_READ}`. A user's
page asks with a token: a JWT, signed by the host's backend with
{" or ".join(ALGORITHMS.values())}, with `kid`, `aud` `{AUDIENCE}`, `sub` (the user's id), `iat`,
`exp` at most {MAX_LIFETIME_SECONDS // 60} minutes later, and, for an account's totals, `account`
(its id).

`as_of` is when the ledger was read. What publishers, the queue or the recorder still hold is not in
an answer. The tag stands for everything but `as_of`. No answer, or a refused one, never means that
a run is allowed."""

ANSWERS: Final = {
    Code.INVALID: "A parameter breaks a rule.",
    Code.UNAUTHORIZED: "Neither a configured key nor a valid token. `token_expired`: get another.",
    Code.FORBIDDEN: "The key lacks the right, or the token is another user's or account's.",
    Code.NOT_FOUND: "There are no plans.",
    Code.TOO_LARGE: f"More than {MAX_ROWS} rows of recorded usage.",
    Code.RATE_LIMITED: "The user or the key has sent too many requests to this process.",
    Code.INTERNAL_ERROR: "A fault of the API itself.",
    Code.DATABASE_UNAVAILABLE: (
        "The database is away or slow, or the totals are not complete yet. `overloaded`: more"
        " requests came at once than this process answers in time."
    ),
}
RETRIED: Final = (Code.RATE_LIMITED, Code.DATABASE_UNAVAILABLE)
"""The answers with `Retry-After`."""

TIME: Final[Part] = {"type": "string", "format": "date-time"}
ID: Final[Part] = {"type": "string", "format": "uuid"}
TEXT: Final[Part] = {"type": "string"}
COUNT: Final[Part] = {"type": "integer", "minimum": 0}
PATTERN: Final[Part] = {"type": "string", "description": "`*` stands for any text."}


def usage_openapi_page() -> Iterator[str]:
    """Yield the lines of the document."""
    document: Part = {
        "openapi": "3.1.0",
        "info": {"title": "Nexus metering: usage API", "version": "1", "description": ABOUT},
        "servers": [{"url": "http://127.0.0.1:8085"}],
        "security": [{"key": []}, {"token": []}],
        "paths": {
            "/v1/entitlements/{user_id}": {"get": _entitlements()},
            "/v1/usage": {"get": _usage()},
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "schemas": {
                "entitlements": _entitlements_schema(),
                "usage": _usage_schema(),
                "problem": _problem(),
            },
        },
    }
    yield from json.dumps(document, indent=2).splitlines()


def _entitlements() -> Part:
    user = {"name": "user_id", "in": "path", "required": True, "schema": ID}
    refusals = [code for code in ANSWERS if code is not Code.TOO_LARGE]
    return {
        "operationId": "getEntitlements",
        "summary": "What a user may do: the plan of their account, and what is left of its limits",
        "parameters": [user, _tag()],
        "responses": _responses("entitlements", refusals),
    }


def _usage() -> Part:
    longest = ", ".join(f"{by.longest.days} days by {by}" for by in By)
    moment = {
        "oneOf": [TIME, {"type": "string", "format": "date"}],
        "description": "A time, or a date, which means its beginning in UTC.",
    }
    return {
        "operationId": "getUsage",
        "summary": "What a user has used, and what Stripe has accepted of their account's amounts",
        "description": f"The span is widened to whole hours or days of UTC. At most {longest}.",
        "parameters": [
            _parameter("from", moment, "Thirty days before `to`, if absent."),
            _parameter("to", moment, "Now, if absent."),
            _parameter("by", {"enum": [str(by) for by in By], "default": str(By.DAY)}, "Spans."),
            _parameter("account", ID, "Whose amounts: the token's, else the user's, if absent."),
            _parameter("user", ID, "Whose usage. Services must say it."),
            _tag(),
        ],
        "responses": _responses("usage", [code for code in ANSWERS if code is not Code.NOT_FOUND]),
    }


def _parameter(name: str, schema: Part, description: str) -> Part:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _tag() -> Part:
    return {
        "name": "If-None-Match",
        "in": "header",
        "description": "The tag of an earlier answer.",
        "schema": {"type": "string"},
    }


def _responses(schema: str, refusals: Sequence[Code]) -> Part:
    headers = {
        "ETag": {"description": "A weak tag.", "required": True, "schema": TEXT},
        "Cache-Control": {
            "description": f"`private, max-age={MAX_AGE}`.",
            "required": True,
            "schema": TEXT,
        },
    }
    content = {"application/json": {"schema": {"$ref": _name(schema)}}}
    return {
        "200": {"description": "The answer.", "headers": headers, "content": content},
        "304": {"description": "The tag still stands.", "headers": headers},
        **{str(Problem(code, "").status): _refusal(code) for code in refusals},
    }


def _refusal(code: Code) -> Part:
    answer: Part = {
        "description": ANSWERS[code],
        "content": {PROBLEM: {"schema": {"$ref": _name("problem")}}},
    }
    if code in RETRIED:
        seconds = {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": seconds}
    return answer


def _entitlements_schema() -> Part:
    limit = _object(
        {
            "name": TEXT,
            "meter": TEXT,
            "server_id": PATTERN,
            "tool_name": PATTERN,
            "limit": COUNT,
            "used": _or_null(COUNT, "In the period. Null: the token has no claim for the account."),
            "remaining": _or_null(
                COUNT,
                f"Likewise. 0 for a hard limit also if {MAX_WAITING_RUNS} runs or more wait for a"
                " customer: then `used` is not all.",
            ),
            "hard": {"type": "boolean", "description": "Matching runs are refused at 0 remaining."},
            "period_start": TIME,
            "period_end": TIME,
        }
    )
    limit["description"] = "A limit with several patterns is there once for each."
    return _object(
        {
            "user_id": ID,
            "account_id": ID,
            "plan": _or_null(TEXT, "Null: nothing is allowed."),
            "plan_name": _or_null(TEXT, ""),
            "status": _or_null(TEXT, "Of the subscription, Stripe's word. Null: none runs."),
            "features": {"type": "array", "items": TEXT},
            "denied": _list({"server_id": PATTERN, "tool_name": PATTERN}),
            "limits": {"type": "array", "items": limit},
            "rate_limits": _list({"server_id": PATTERN, "per_minute": COUNT}),
            "period": _object(
                {"start": TIME, "end": TIME, "basis": {"enum": ["stripe", "utc_month"]}}
            ),
            "seats": _or_null(COUNT, "Null: not paid by seat."),
            "as_of": TIME,
        }
    )


def _usage_schema() -> Part:
    why = _object(dict.fromkeys((*WHY.values(), NO_CUSTOMER), COUNT), required=())
    why["description"] = (
        f"What waits, by cause. Of runs without a customer {MAX_WAITING_RUNS} are added up."
    )
    reasons = {
        "type": "object",
        "description": "What is refused, by Stripe's reason.",
        "additionalProperties": COUNT,
    }
    amount = {
        "start": TIME,
        "meter": TEXT,
        "accepted": {"type": "integer", "description": "By Stripe."},
        "waiting": COUNT,
        "why": why,
        "reasons": reasons,
        "shadow": COUNT | {"description": "In neither: it was reported in another way."},
    }
    recorded = {"start": TIME, "server_id": TEXT, "tool_name": TEXT, "runs": COUNT, "tokens": COUNT}
    properties: Part = {
        "user_id": ID,
        "account_id": ID,
        "scope": {
            "enum": ["user", "account"],
            "description": "`user`: the account is the user's own. `account`: it is another.",
        },
        "from": TIME,
        "to": TIME,
        "by": {"enum": [str(by) for by in By]},
        "meters": {
            "type": "object",
            "description": "How meters are shown, by their event names, as the file of plans says.",
            "additionalProperties": _object({"display_name": TEXT, "unit": TEXT}),
        },
        "recorded": _list(recorded),
        "amounts": {
            "type": "array",
            "description": "Of the account. Absent: the token has no claim for it.",
            "items": _object(amount, required=[*amount][:-2]),
        },
        "as_of": TIME,
    }
    return _object(properties, required=[name for name in properties if name != "amounts"])


def _problem() -> Part:
    codes = {*ANSWERS, Code.TOKEN_EXPIRED, Code.OVERLOADED, Code.METHOD_NOT_ALLOWED}
    return _object(
        {
            "title": TEXT,
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": sorted(codes)},
            "detail": TEXT,
            "errors": _list({"field": TEXT, "rule": TEXT}),
        },
        required=("title", "status", "code", "detail"),
    )


def _object(properties: Mapping[str, Part], required: Any = None) -> Part:
    named = list(properties) if required is None else list(required)
    schema: Part = {"type": "object", "properties": dict(properties)}
    return schema | ({"required": named} if named else {})


def _list(properties: Mapping[str, Part]) -> Part:
    return {"type": "array", "items": _object(properties)}


def _or_null(schema: Part, description: str) -> Part:
    either = {**schema, "type": [schema["type"], "null"]}
    return either | ({"description": description} if description else {})


def _name(schema: str) -> str:
    return f"#/components/schemas/{schema}"
