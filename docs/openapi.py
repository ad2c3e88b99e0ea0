"""The events API as OpenAPI 3.1 says it, from the contracts and the API's own constants."""

import json
from collections.abc import Iterator
from typing import Any, Final

from nexus_contracts import BATCH_CONTENT_TYPE, CONTENT_TYPE, MAX_BODY_BYTES, EventData
from nexus_contracts.schemas import schema_of
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_service.api_keys import FULL_BATCH
from nexus_service.problems import CONTENT_TYPE as PROBLEM
from nexus_service.problems import Code, Problem
from usage_ingest.events_api.bodies import MAX_REQUEST_BYTES
from usage_ingest.events_api.reading import JSON_CONTENT_TYPE

Part = dict[str, Any]

ABOUT: Final = f"""\
Publishes events for services that hold no connection to the broker. 202 says that the broker has
confirmed every event; nothing less is a success. A request that was not answered by 202 is sent
again whole: an id is charged once, so a repetition does no harm. A 400 or 413 names every event
that breaks a rule: leave those out, and send the others again. If none does, a 403 names the events
that the key may not publish: they are accepted once the key is corrected.

In CloudEvents' binary mode the attributes are headers (`ce-id`, `ce-source`, `ce-type`, `ce-time`,
`ce-specversion`), and the body is the event's `data` as `{JSON_CONTENT_TYPE}`.

A request has at most {FULL_BATCH} events and {MAX_REQUEST_BYTES} bytes, an event {MAX_BODY_BYTES}
bytes. A `time` is from 1970 on."""

ANSWERS: Final = {
    Code.INVALID: "A body that can't be read, or events that break a rule. Nothing is published.",
    Code.UNAUTHORIZED: "No key, or one that is not configured.",
    Code.FORBIDDEN: "Events of a source or type that the key may not publish.",
    Code.BODY_TIMEOUT: "The body did not arrive in time.",
    Code.TOO_LARGE: "Too many events, or too many bytes of the request or of an event.",
    Code.UNSUPPORTED_MEDIA_TYPE: "Another media type or character set, or a compressed body.",
    Code.RATE_LIMITED: "The key has sent too many events to this process.",
    Code.INTERNAL_ERROR: "A fault of the API itself. Send the same request again.",
    Code.BROKER_UNAVAILABLE: "The broker is away, does not confirm, or too much is in progress."
    " Send the same request again.",
}
RETRIED: Final = (Code.RATE_LIMITED, Code.BROKER_UNAVAILABLE)
"""The answers with `Retry-After`."""


def openapi_page() -> Iterator[str]:
    """Yield the lines of the document."""
    document: Part = {
        "openapi": "3.1.0",
        "info": {"title": "Nexus metering: events API", "version": "1", "description": ABOUT},
        "servers": [{"url": "http://127.0.0.1:8084"}],
        "security": [{"key": []}],
        "paths": {"/v1/events": {"post": _publishing()}},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **{data.TYPE: _event(data) for data in OUTSIDE_EVENTS},
                "event": {
                    "oneOf": [{"$ref": _name(data.TYPE)} for data in OUTSIDE_EVENTS],
                    "discriminator": {
                        "propertyName": "type",
                        "mapping": {data.TYPE: _name(data.TYPE) for data in OUTSIDE_EVENTS},
                    },
                },
                "events": {
                    "type": "array",
                    "maxItems": FULL_BATCH,
                    "items": {"$ref": _name("event")},
                },
                "problem": _problem(),
            },
        },
    }
    yield from json.dumps(document, indent=2).splitlines()


def _publishing() -> Part:
    one, many = {"$ref": _name("event")}, {"$ref": _name("events")}
    return {
        "operationId": "publishEvents",
        "summary": "Publish events, and wait until the broker has confirmed them",
        "parameters": [
            {
                "name": "traceparent",
                "in": "header",
                "description": "A W3C trace context, for events that have none.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                CONTENT_TYPE: {"schema": one},
                BATCH_CONTENT_TYPE: {"schema": many},
                JSON_CONTENT_TYPE: {"schema": {"oneOf": [one, many]}},
            },
        },
        "responses": {
            "202": {
                "description": "Every event is confirmed.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"accepted": {"type": "integer", "minimum": 0}},
                            "required": ["accepted"],
                        }
                    }
                },
            },
            **{str(Problem(code, "").status): _answer(code) for code in ANSWERS},
        },
    }


def _answer(code: Code) -> Part:
    answer: Part = {
        "description": ANSWERS[code],
        "content": {PROBLEM: {"schema": {"$ref": _name("problem")}}},
    }
    if code in RETRIED:
        seconds = {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": seconds}
    return answer


def _problem() -> Part:
    fault = {
        "type": "object",
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "Of the event, from 0."},
            "field": {"type": "string", "description": "Its path, such as `data.user_id`."},
            "rule": {"type": "string", "description": "What it must be. It shows no value."},
        },
        "required": ["field", "rule"],
    }
    return {
        "type": "object",
        "description": "Problem details: https://www.rfc-editor.org/rfc/rfc9457",
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": sorted(Code)},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": fault},
        },
        "required": ["title", "status", "code", "detail"],
    }


def _event(data: type[EventData]) -> Part:
    schema = schema_of(data)
    del schema["$schema"]
    return dict(_moved(schema, _name(data.TYPE)))


def _moved(part: Any, home: str) -> Any:
    """Return a schema whose references to its own definitions are valid at ``home``."""
    if isinstance(part, list):
        return [_moved(each, home) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: value.replace("#/", f"{home}/", 1) if key == "$ref" else _moved(value, home)
        for key, value in part.items()
    }


def _name(schema: str) -> str:
    return f"#/components/schemas/{schema}"
