"""The page of all events: where each goes, its fields with their rules, and an example."""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from channels import OUTSIDE, Channel, channels
from pydantic_core import ErrorDetails

from nexus_contracts.schemas import schema_of
from nexus_contracts.shapes import Field, Kind, Shape, shape_of
from nexus_contracts.wording import rule
from nexus_messaging.router import Router

INTRODUCTION: Final = """\
# Events

Every event, who publishes it, who consumes it, and the rules of its fields.
[publishing.md](publishing.md) says how to publish; [asyncapi.json](asyncapi.json) has the same in
AsyncAPI 3.0, and [`libs/contracts/schemas/`](../libs/contracts/schemas/) in JSON Schema. This page
is made from the code (`make docs`).

**Charged** marks fields that decide whether, when, how much or to whom a run is charged, or keep it
from being charged twice. Once released, neither their schema nor their description changes within
the major version. No other field is removed, becomes required, or takes fewer values. Fields that
are not named here are ignored; their names are reserved for later versions.
"""

ENVELOPE: Final = """\
## The envelope

[CloudEvents 1.0](https://github.com/cloudevents/spec), structured, in JSON. Fields of every event:
"""

_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
    "null": "null",
}
_FORMATS: Final = {"uuid": "UUID", "date-time": "time"}
_LIMITS: Final = {"string": ("minLength", "maxLength"), "integer": ("minimum", "maximum")}


def events_page(routers: Mapping[str, Router]) -> Iterator[str]:
    """Yield the lines of the page."""
    ways = list(channels(routers))
    yield INTRODUCTION
    yield "| event | published by | consumed by | from the queue |"
    yield "|---|---|---|---|"
    for way in ways:
        link = f"[`{way.data.TYPE}`](#{way.data.TYPE.replace('.', '')})"
        yield f"| {link} | {_senders(way)} | {way.consumer} | `{way.queue}` |"
    yield ""
    yield ENVELOPE
    [envelope] = shape_of(schema_of(ways[0].data))
    rest = {name: each for name, each in envelope.fields.items() if name not in {"data", "type"}}
    yield from _table(rest, envelope.required)
    yield "| `type` | text: the event's name and its major version | yes | | What happened. |"
    yield "| `data` | object | yes | | The fields of the event, below. |"
    for way in ways:
        yield from _section(way)


def _section(way: Channel) -> Iterator[str]:
    [body] = shape_of(schema_of(way.data))
    [data] = body.fields["data"].shape
    yield f"\n## {way.data.TYPE}\n"
    yield " ".join((way.data.__doc__ or "").replace("``", "`").split()) + "\n"
    yield from _table(data.fields, data.required)
    yield "\n```json"
    yield json.dumps(way.example, indent=2, ensure_ascii=False)
    yield "```"


def _senders(way: Channel) -> str:
    names = [
        f"{'services outside' if name == OUTSIDE else name} (`{exchange}`)"
        for exchange, names in way.senders.items()
        for name in names
    ]
    return ", ".join(names)


def _table(fields: Mapping[str, Field], required: frozenset[str]) -> Iterator[str]:
    yield "| field | rule | required | charged | |"
    yield "|---|---|---|---|---|"
    for name, field in fields.items():
        must, charged = ("yes" if name in required else ""), ("yes" if field.billed else "")
        description = " ".join(field.schema.get("description", "").split()).replace("<", "\\<")
        yield f"| `{name}` | {_rules(field.shape)} | {must} | {charged} | {description} |"


def _rules(shape: Shape) -> str:
    return " or ".join(map(_rule, shape)).replace("|", "\\|")


def _rule(kind: Kind) -> str:
    if kind.values is not None:
        return " or ".join(f"`{json.dumps(value)}`" for value in kind.values)
    words = [_FORMATS.get(kind.texts.get("format", ""), _TYPES[kind.type])]
    low, high = (kind.limits.get(name) for name in _LIMITS.get(kind.type, ("", "")))
    if high is not None:
        characters = " characters" if kind.type == "string" else ""
        words.append(f"{low or 0:,} to {high:,}{characters}")
    if "pattern" in kind.texts:
        words.append(_pattern(kind.texts["pattern"]))
    words += [f"each value {_rules(values)}" for values in kind.by_pattern.values()]
    return ", ".join(words)


def _pattern(pattern: str) -> str:
    """Return the rule of a pattern in the words of an error about it."""
    context = {"pattern": pattern}
    return rule(
        ErrorDetails(type="string_pattern_mismatch", loc=(), msg="", input=None, ctx=context)
    )
