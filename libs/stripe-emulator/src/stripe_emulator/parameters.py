"""The kinds of parameters of the endpoints, how their values are read, and when refused."""

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from stripe_emulator.errors import (
    StripeError,
    empty_parameter,
    invalid_parameter,
    missing_parameter,
    unknown_parameter,
)
from stripe_emulator.forms import Form, FormValue

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_INDEX = re.compile(r"[0-9]{1,4}")
_METADATA_KEYS, _METADATA_KEY_LENGTH, _METADATA_VALUE_LENGTH = 50, 40, 500


class ParameterKind(Protocol):
    """Reads the form value of one parameter."""

    def read(self, value: FormValue, param: str) -> Any:
        """Return the value, or raise a 400 that names ``param``."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string of at most ``max_length`` characters; empty means unset, where that is allowed."""

    max_length: int = 5000
    unsettable: bool = False

    def read(self, value: FormValue, param: str) -> str | None:
        """Return the string, or None when an empty one unsets it."""
        text = _string(value, param, self.max_length)
        if text == "" and not self.unsettable:
            raise empty_parameter(param)
        return text or None


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number between bounds."""

    minimum: int | None = None
    maximum: int | None = None

    def read(self, value: FormValue, param: str) -> int:
        """Return the number."""
        code = "parameter_invalid_integer"
        if not isinstance(value, str) or not _INTEGER.fullmatch(value):
            raise invalid_parameter(param, f"Invalid integer: {abbreviated(value)}", code)
        number = int(value)
        if self.minimum is not None and number < self.minimum:
            message = f"This value must be greater than or equal to {self.minimum}."
            raise invalid_parameter(param, message, code)
        if self.maximum is not None and number > self.maximum:
            message = f"This value must be less than or equal to {self.maximum}."
            raise invalid_parameter(param, message, code)
        return number


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: FormValue, param: str) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            *most, last = self.words
            allowed = f"{', '.join(most)} or {last}" if most else last
            raise invalid_parameter(param, f"Invalid {param}: must be one of {allowed}")
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    """``true`` or ``false``."""

    def read(self, value: FormValue, param: str) -> bool:
        """Return the truth value."""
        if value not in ("true", "false"):
            raise invalid_parameter(param, f"Invalid boolean: {abbreviated(value)}")
        return value == "true"


@dataclass(frozen=True, slots=True)
class Texts:
    """An array of strings, written ``a[]=x`` or ``a[0]=x``."""

    max_length: int = 5000

    def read(self, value: FormValue, param: str) -> list[str]:
        """Return the strings in their order."""
        items = enumerate(_array(value, param))
        read = [Text(self.max_length).read(item, f"{param}[{i}]") for i, item in items]
        return [item for item in read if item is not None]


@dataclass(frozen=True, slots=True)
class Array:
    """An array whose items are all of one kind, such as objects: ``a[0][b]=x``."""

    kind: "ParameterKind"
    most: int = 100

    def read(self, value: FormValue, param: str) -> list[Any]:
        """Return the items in their order."""
        items = _array(value, param)
        if len(items) > self.most:
            raise invalid_parameter(param, f"Array must have at most {self.most} items.")
        return [self.kind.read(item, f"{param}[{i}]") for i, item in enumerate(items)]


@dataclass(frozen=True, slots=True)
class OrEmpty:
    """Another kind, or an empty string, which unsets it and is read as None."""

    kind: "ParameterKind"

    def read(self, value: FormValue, param: str) -> Any:
        """Return what the other kind reads, or None."""
        return None if value == "" else self.kind.read(value, param)


@dataclass(frozen=True, slots=True)
class TextMap:
    """A map with free keys and string values, such as a meter event's payload."""

    max_length: int = 5000

    def read(self, value: FormValue, param: str) -> dict[str, str]:
        """Return the map."""
        if not isinstance(value, dict):
            raise _invalid_object(param)
        return {
            key: _string(item, f"{param}[{key}]", self.max_length) for key, item in value.items()
        }


@dataclass(frozen=True, slots=True)
class Metadata:
    """Free key-value pairs: at most 50, keys up to 40 characters, values up to 500.

    An empty value deletes its key, an empty string in place of the map deletes all.
    """

    def read(self, value: FormValue, param: str) -> dict[str, str]:
        """Return the changes, with ``""`` for keys to delete."""
        if value == "":
            return {}
        if not isinstance(value, dict):
            raise _invalid_object(param)
        if len(value) > _METADATA_KEYS:
            raise invalid_parameter(param, f"You can have up to {_METADATA_KEYS} metadata keys.")
        return {key: self._entry(key, item, param) for key, item in value.items()}

    def _entry(self, key: str, value: FormValue, param: str) -> str:
        if len(key) > _METADATA_KEY_LENGTH:
            limit = f"must be a string under {_METADATA_KEY_LENGTH} characters"
            raise invalid_parameter(param, f"Invalid key: {abbreviated(key)} {limit}")
        if not isinstance(value, str):
            raise invalid_parameter(f"{param}[{key}]", f"Invalid string: {abbreviated(value)}")
        if len(value) > _METADATA_VALUE_LENGTH:
            limit = f"must be a string under {_METADATA_VALUE_LENGTH} characters"
            raise invalid_parameter(f"{param}[{key}]", f"Invalid val: {abbreviated(value)} {limit}")
        return value


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of an endpoint, or of one nested object in it."""

    kinds: Mapping[str, ParameterKind]
    required: tuple[str, ...] = ()
    _expand: ParameterKind = field(default_factory=Texts)

    def read(self, value: FormValue, param: str = "") -> dict[str, Any]:
        """Read a form by these rules.

        Args:
            value: The form, or the part of it that belongs to this object.
            param: The object's own name, empty for the whole form.

        Raises:
            StripeError: 400, naming the first parameter that is unknown, missing or unreadable.
        """
        if not isinstance(value, dict):
            raise _invalid_object(param)
        self._refuse_unknown(value, param)
        for name in self.required:
            if name not in value:
                raise missing_parameter(_nested(param, name))
        known = {name: self.kinds[name] for name in value if name in self.kinds}
        return {name: kind.read(value[name], _nested(param, name)) for name, kind in known.items()}

    def _refuse_unknown(self, form: Form, param: str) -> None:
        for name, value in form.items():
            if name == "expand" and param == "":
                self._expand.read(value, "expand")
            elif name not in self.kinds:
                raise unknown_parameter(_nested(param, name))


PAGING: Mapping[str, ParameterKind] = {
    "limit": Integer(minimum=1, maximum=100),
    "starting_after": Text(),
    "ending_before": Text(),
}
NOTHING = Parameters({})
CREATED = Parameters({name: Integer() for name in ("gt", "gte", "lt", "lte")})


def is_within(moment: float, bounds: Mapping[str, float]) -> bool:
    """Return whether a time is within bounds that ``CREATED`` read."""
    tests = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return all(tests[name](moment, bound) for name, bound in bounds.items())


def merged_metadata(before: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Return metadata after changes that ``Metadata`` read; none at all deletes everything."""
    merged = {**before, **changes} if changes else {}
    return {key: value for key, value in merged.items() if value != ""}


def abbreviated(value: FormValue) -> str:
    """Format a value for an error message; the middle of long strings is left out."""
    if not isinstance(value, str):
        return "an object" if isinstance(value, dict) else "an array"
    head = tail = 10
    return value if len(value) <= head + tail + 3 else f"{value[:head]}...{value[-tail:]}"


def _array(value: FormValue, param: str) -> list[FormValue]:
    if isinstance(value, dict) and all(map(_INDEX.fullmatch, value)):
        return [value[key] for key in sorted(value, key=int)]
    if not isinstance(value, list):
        raise invalid_parameter(param, "Invalid array")
    return value


def _string(value: FormValue, param: str, max_length: int) -> str:
    if not isinstance(value, str):
        raise invalid_parameter(param, f"Invalid string: {abbreviated(value)}")
    if len(value) > max_length:
        message = f"Invalid string: {abbreviated(value)}; must be at most {max_length} characters"
        raise invalid_parameter(param, message)
    return value


def _nested(param: str, name: str) -> str:
    return f"{param}[{name}]" if param else name


def _invalid_object(param: str) -> StripeError:
    return invalid_parameter(param, "Invalid object")
