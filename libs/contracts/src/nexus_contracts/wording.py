"""Describes validation errors to people: the path of the field and the rule, without values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_RULES: Final = 8
"""Broken rules in one text at most: the text is sent in a message header."""

_PATH_DEPTH: Final = 2

_OBJECT: Final = "must be an object"
_LIST: Final = "must be a list"
_TEXT: Final = "must be text"
_WHOLE: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_CHOICE: Final = "must be true or false"
_UUID: Final = "must be a UUID"
NOT_A_TIME: Final = "must be a time as RFC 3339 writes it: 2026-03-01T12:00:00Z"
_JSON: Final = "is not JSON"
_UTF_8: Final = "is not UTF-8"

# By pydantic's error types (https://docs.pydantic.dev/latest/errors/validation_errors/). Only the
# limits of a rule are inserted; other parts of pydantic's context may be input.
_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is missing",
        "extra_forbidden": "is no known field",
        "json_invalid": _JSON,
        "json_type": _JSON,
        "recursion_loop": "is nested too deeply",
        "recursion_depth_exceeded": "is nested too deeply",
        "model_type": _OBJECT,
        "model_attributes_type": _OBJECT,
        "dataclass_type": _OBJECT,
        "dict_type": _OBJECT,
        "mapping_type": _OBJECT,
        "list_type": _LIST,
        "tuple_type": _LIST,
        "set_type": _LIST,
        "string_type": _TEXT,
        "string_unicode": _UTF_8,
        "string_too_short": "must have at least {min_length} characters",
        "string_too_long": "must have at most {max_length} characters",
        "too_short": "must have at least {min_length} entries",
        "too_long": "must have at most {max_length} entries",
        "bytes_type": _TEXT,
        "bool_type": _CHOICE,
        "bool_parsing": _CHOICE,
        "int_type": _WHOLE,
        "int_parsing": _WHOLE,
        "int_parsing_size": _WHOLE,
        "int_from_float": _WHOLE,
        "float_type": _NUMBER,
        "float_parsing": _NUMBER,
        "finite_number": "must be a finite number",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be {expected}",
        "enum": "must be {expected}",
        "uuid_type": _UUID,
        "uuid_parsing": _UUID,
        "datetime_type": NOT_A_TIME,
        "datetime_parsing": NOT_A_TIME,
        "datetime_object_invalid": NOT_A_TIME,
        "datetime_from_date_parsing": NOT_A_TIME,
        "timezone_aware": "must say how far it is from UTC: 2026-03-01T12:00:00Z",
    }
)
_OTHER: Final = "breaks a rule of its field"

_PATTERN_WORDS: Final[dict[str, str]] = {}


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A field's path, such as ``data.user_id``, and the rule that its value breaks."""

    field: str
    rule: str

    @property
    def text(self) -> str:
        """Both on one line: ``data.user_id: must be a UUID``."""
        return f"{self.field}: {self.rule}"


def worded_pattern(pattern: str, words: str) -> str:
    """Register ``words`` as the description of a field's ``pattern``; return the pattern."""
    _PATTERN_WORDS[pattern] = words
    return pattern


def rule(detail: ErrorDetails) -> str:
    """Return the broken rule as a phrase that follows the name of the field."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error" | "assertion_error":
            # A validator of this project: its text is meant for people and quotes no input.
            return str(context.get("error") or _OTHER)
        case "string_pattern_mismatch":
            pattern = str(context.get("pattern"))
            return _PATTERN_WORDS.get(pattern, f"must match {pattern}")
        case "is_instance_of" if context.get("class") == "UUID":
            return _UUID
        case kind:
            return _RULES.get(kind, _OTHER).format_map(context)


def broken_rules(error: ValidationError) -> Iterator[BrokenRule]:
    """Yield at most ``MAX_RULES`` broken rules, without input.

    Paths end at the fields of the contract: keys inside free-form fields are input.
    """
    for detail in error.errors(include_input=False, include_url=False)[:MAX_RULES]:
        path = ".".join(str(part) for part in detail["loc"][:_PATH_DEPTH])
        yield BrokenRule(path or "body", rule(detail))


def describe(error: ValidationError) -> str:
    """Describe each broken rule by its field's path and in words, without input."""
    return "; ".join(broken.text for broken in broken_rules(error))


def printable(text: str) -> str:
    """Return ``text`` on one line, with characters escaped that would move, hide or reorder text.

    Those are Unicode's control, format and separator characters, such as U+009B and U+202E, and
    surrogates, which stand for bytes that are not text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
