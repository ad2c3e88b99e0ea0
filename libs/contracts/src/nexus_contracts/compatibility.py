"""Decides whether a contract still keeps what a release of it promised. Pure.

A contract is kept in two directions, because publishers and consumers are deployed at different
times. What a release lets publishers write must be readable here: queues, outboxes and dead letters
hold it. What we write now must be readable by a release: its processes run on during an upgrade.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nexus_contracts.shapes import (
    Field,
    Kind,
    Schema,
    Shape,
    UnknownSchemaError,
    as_text,
    fields_of,
    shape_of,
)


@dataclass(frozen=True, slots=True)
class Contract:
    """An event of this checkout: the schema that it reads by, and the schema of what it writes.

    They differ where a field is read leniently: ``datacontenttype`` is read in many forms and
    written in one.
    """

    name: str
    reads: Schema
    writes: Schema


@dataclass(frozen=True, slots=True)
class Refusal:
    """What may be written to ``field`` and is not read, and the keyword of the rule."""

    field: str
    rule: str
    written: str
    read: str


def breaks(contract: Contract, released: Schema, version: str) -> Iterator[str]:
    """Yield how ``contract`` breaks the one that release ``version`` has, a sentence each.

    ``released`` is the published schema of that release. Names of fields that a release does not
    know are free for later ones: a new optional field breaks nothing.
    """
    try:
        old, reads, writes = map(shape_of, (released, contract.reads, contract.writes))
    except UnknownSchemaError as error:
        yield f"{contract.name} {error}: teach it to nexus_contracts.shapes first"
        return
    release = f"release {version}"
    was, now = dict(fields_of(old)), dict(fields_of(reads))
    for name in sorted(was.keys() - now.keys()):
        yield f"{contract.name} {name}: removed; {release} has it"
    for each in refusals(old, reads):
        difference = f"{release} writes {each.written}, this checkout reads {each.read}"
        yield f"{contract.name} {each.field}: {each.rule}: {difference}"
    for each in refusals(writes, old):
        difference = f"this checkout writes {each.written}, {release} reads {each.read}"
        yield f"{contract.name} {each.field}: {each.rule}: {difference}"
    for name in sorted(was.keys() & now.keys()):
        for change in _billed_changes(was[name], now[name]):
            yield f"{contract.name} {name}: billed: {change} since {release}"


def refusals(writer: Shape, reader: Shape, field: str = "body") -> Iterator[Refusal]:
    """Yield what ``writer`` allows and ``reader`` refuses; nothing if all of it is read."""
    for kind in _by_value(writer):
        readers = [each for each in reader if each.type in _types_that_read(kind)]
        if readers:
            yield from min((list(_of_kind(kind, each, field)) for each in readers), key=len)
        else:
            yield Refusal(field, "type", kind.type, _types(reader))


def _by_value(shape: Shape) -> Iterator[Kind]:
    for kind in shape:
        if kind.values is None:
            yield kind
        else:
            yield from (replace(kind, values=(value,)) for value in kind.values)


def _types_that_read(kind: Kind) -> tuple[str, ...]:
    return ("integer", "number") if kind.type == "integer" else (kind.type,)


def _types(shape: Shape) -> str:
    return " or ".join(dict.fromkeys(kind.type for kind in shape)) or "nothing"


def _of_kind(writer: Kind, reader: Kind, field: str) -> Iterator[Refusal]:
    if writer.values is not None:
        if not all(_takes(reader, value) for value in writer.values):
            yield Refusal(field, "value", as_text(writer.values[0]), _requirement(reader))
        return
    if reader.values is not None:
        yield Refusal(field, "enum", f"any {writer.type}", _requirement(reader))
        return
    for rule, limit in reader.limits.items():
        written = writer.limits.get(rule)
        if written is None or (written < limit if rule.startswith("min") else written > limit):
            yield Refusal(field, rule, "any" if written is None else str(written), str(limit))
    for rule, text in reader.texts.items():
        if writer.texts.get(rule) != text:
            yield Refusal(field, rule, writer.texts.get(rule, "any"), text)
    if reader.items is not None:
        yield from _within(writer.items, reader.items, f"{field}[]", "items")
    yield from _of_object(writer, reader, "" if field == "body" else f"{field}.")


def _of_object(writer: Kind, reader: Kind, prefix: str) -> Iterator[Refusal]:
    for name in sorted(reader.required - writer.required):
        yield Refusal(f"{prefix}{name}", "required", "events without it", "none without it")
    for name, field in writer.fields.items():
        if name in reader.fields:
            yield from refusals(field.shape, reader.fields[name].shape, f"{prefix}{name}")
        elif reader.further is not None:
            yield from refusals(field.shape, reader.further, f"{prefix}{name}")
    if reader.further is not None:
        yield from _within(writer.further, reader.further, f"{prefix}*", "additionalProperties")
    if reader.names is not None:
        yield from _within(writer.names, reader.names, f"{prefix[:-1]} (name)", "propertyNames")
    for pattern, shape in reader.by_pattern.items():
        written = writer.by_pattern.get(pattern)
        yield from _within(written, shape, f"{prefix}*", "patternProperties")


def _within(writer: Shape | None, reader: Shape, field: str, rule: str) -> Iterator[Refusal]:
    if writer is None:
        yield Refusal(field, rule, "anything", _types(reader))
    else:
        yield from refusals(writer, reader, field)


def _takes(reader: Kind, value: object) -> bool:
    if reader.values is not None:
        return value in reader.values
    size = len(value) if isinstance(value, str) else value
    if isinstance(size, int):
        limits = reader.limits
        low = next((limits[name] for name in ("minimum", "minLength") if name in limits), size)
        high = next((limits[name] for name in ("maximum", "maxLength") if name in limits), size)
        if not low <= size <= high:
            return False
    if not isinstance(value, str):
        return True
    pattern = reader.texts.get("pattern", "")
    return "format" not in reader.texts and re.search(pattern, value) is not None


def _requirement(reader: Kind) -> str:
    if reader.values is not None:
        return " or ".join(map(as_text, reader.values))
    rules = {**reader.limits, **reader.texts}
    return f"a {reader.type}" + (f" with {as_text(rules)}" if rules else "")


def _billed_changes(old: Field, new: Field) -> Iterator[str]:
    """Yield what changed of a field that is billed; a first description is no change."""
    if not (old.billed or new.billed):
        return
    if old.billed and not new.billed:
        yield "the mark is gone"
    for keyword in sorted(old.schema.keys() | new.schema.keys()):
        was, now = old.schema.get(keyword), new.schema.get(keyword)
        first = keyword == "description" and was is None and not old.billed
        if was != now and not first:
            yield f"{keyword} changed from {as_text(was)} to {as_text(now)}"
