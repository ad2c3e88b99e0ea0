"""JSON Schemas of contracts as values that can be compared. What is not understood is refused.

Only the keywords that our models produce are known. A comparison that skipped an unknown keyword
would call a broken contract sound.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus_contracts.fields import BILLED_KEYWORD

Schema = Mapping[str, Any]
"""A JSON Schema, or a part of one, as ``json.loads`` returns it."""

ALL_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")

_ANNOTATIONS: Final = frozenset(
    {"$schema", "$defs", "title", "description", "default", "examples", BILLED_KEYWORD}
)
_LIMITS: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}
_TEXTS: Final = ("pattern", "format")
_OBJECT: Final = (
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
)
_REFERENCE: Final = "#/$defs/"


class UnknownSchemaError(Exception):
    """A schema has a keyword or a form that cannot be compared; the text names field and form."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The values of one JSON type, and the rules that they keep.

    ``values``: these and no others. ``limits`` and ``texts`` are rules by their keyword. Of an
    object, ``further`` is the shape of what has no field of its own, by pattern of its name in
    ``by_pattern``, and ``names`` the shape of all names. ``None`` is no rule.
    """

    type: str
    values: tuple[object, ...] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    items: "Shape | None" = None
    fields: Mapping[str, "Field"] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    further: "Shape | None" = None
    by_pattern: Mapping[str, "Shape"] = field(default_factory=dict)
    names: "Shape | None" = None


Shape = tuple[Kind, ...]
"""Alternatives: a value is of the shape if it is of one of the kinds."""


@dataclass(frozen=True, slots=True)
class Field:
    """A property: its shape, and its schema with all references resolved, its mark left out."""

    shape: Shape
    schema: Schema
    billed: bool


def shape_of(schema: Schema) -> Shape:
    """Return the shape that a whole schema describes.

    Raises:
        UnknownSchemaError: it has a part that cannot be compared.
    """
    return _Parser(schema.get("$defs", {})).shape(schema, "body")


def fields_of(shape: Shape, path: str = "") -> Iterator[tuple[str, Field]]:
    """Yield every field of a shape by its path, the fields within it after it."""
    for kind in shape:
        for name, each in kind.fields.items():
            yield f"{path}{name}", each
            yield from fields_of(each.shape, f"{path}{name}.")


class _Parser:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def shape(self, schema: Schema, path: str) -> Shape:
        rules = schema.keys() - _ANNOTATIONS
        if "$ref" in rules:
            self._require(rules == {"$ref"}, path, "$ref beside other keywords")
            return self.shape(self._definition(schema["$ref"], path), path)
        if "anyOf" in rules:
            self._require(rules == {"anyOf"}, path, "anyOf beside other keywords")
            return tuple(kind for each in schema["anyOf"] for kind in self.shape(each, path))
        types = schema.get("type", ALL_TYPES)
        types = (types,) if isinstance(types, str) else tuple(types)
        known = {"type", "const", "enum"}.union(*(_keywords(each) for each in types))
        self._require(rules <= known, path, ", ".join(sorted(rules - known)))
        return tuple(self._kind(each, schema, path) for each in types)

    def _kind(self, kind: str, schema: Schema, path: str) -> Kind:
        values = (schema["const"],) if "const" in schema else schema.get("enum")
        if values is not None:
            return Kind(kind, tuple(values))
        limits = {name: schema[name] for name in _LIMITS.get(kind, ()) if name in schema}
        if kind == "string":
            texts = {name: schema[name] for name in _TEXTS if name in schema}
            return Kind(kind, limits=limits, texts=texts)
        if kind == "object":
            return self._object(schema, path)
        if kind == "array":
            items = self.shape(schema["items"], f"{path}[]") if "items" in schema else None
            return Kind(kind, limits=limits, items=items)
        return Kind(kind, limits=_inclusive(limits))

    def _object(self, schema: Schema, path: str) -> Kind:
        prefix = "" if path == "body" else f"{path}."
        further = schema.get("additionalProperties", True)
        names = schema.get("propertyNames")
        return Kind(
            "object",
            fields={
                name: self._field(each, f"{prefix}{name}")
                for name, each in schema.get("properties", {}).items()
            },
            required=frozenset(schema.get("required", ())),
            further=self._further(further, f"{prefix}*"),
            by_pattern={
                pattern: self.shape(each, f"{prefix}*")
                for pattern, each in schema.get("patternProperties", {}).items()
            },
            names=None if names is None else self.shape({"type": "string", **names}, f"{prefix}*"),
        )

    def _further(self, schema: bool | Schema, path: str) -> Shape | None:  # noqa: FBT001 - JSON Schema's
        if schema is True:
            return None
        return () if schema is False else self.shape(schema, path)

    def _field(self, schema: Schema, path: str) -> Field:
        shape = self.shape(schema, path)
        resolved = self._resolved(schema)
        return Field(shape, resolved, billed=bool(schema.get(BILLED_KEYWORD, False)))

    def _resolved(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._resolved(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        referred = self._definition(schema["$ref"], "") if "$ref" in schema else {}
        return {
            name: self._resolved(each)
            for name, each in {**referred, **schema}.items()
            if name not in {"$ref", BILLED_KEYWORD}
        }

    def _definition(self, reference: str, path: str) -> Schema:
        name = reference.removeprefix(_REFERENCE)
        self._require(name in self._definitions, path, f"$ref to {reference}")
        return self._definitions[name]

    @staticmethod
    def _require(understood: bool, path: str, form: str) -> None:  # noqa: FBT001 - an assertion
        if not understood:
            raise UnknownSchemaError(f"{path}: {form} can't be compared")


def _keywords(kind: str) -> tuple[str, ...]:
    more = {"string": _TEXTS, "object": _OBJECT, "array": ("items",)}
    return (*_LIMITS.get(kind, ()), *more.get(kind, ()))


def _inclusive(limits: Mapping[str, int]) -> Mapping[str, int]:
    """Return limits of whole numbers as `minimum` and `maximum`."""
    steps = {"exclusiveMinimum": ("minimum", 1), "exclusiveMaximum": ("maximum", -1)}
    plain = {name: limit for name, limit in limits.items() if name not in steps}
    return plain | {
        name: limits[keyword] + step for keyword, (name, step) in steps.items() if keyword in limits
    }


def as_text(value: object) -> str:
    """Return a part of a schema as it stands in the file, on one line."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
