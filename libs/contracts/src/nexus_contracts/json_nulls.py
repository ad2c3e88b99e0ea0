"""Sets a field of a JSON body to null without parsing its value: pure, on bytes.

JSON's grammar allows values that parsers refuse: half of a surrogate pair, numbers of thousands of
digits, thousands of nested brackets. A field that is not used must not make a body unreadable.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from pydantic_core import from_json

_STRING: Final = rb'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
# NaN and the infinities are not JSON, but Python's encoder writes them.
_WORDS: Final = rb"true|false|null|NaN|-?Infinity"
_TOKEN: Final = re.compile(
    rb"[ \t\r\n]*+(" + b"|".join([_STRING, _WORDS, _NUMBER, rb"[{}\[\],:]"]) + rb")"
)
_CLOSING: Final = {b"{": b"}", b"[": b"]"}


class _Expects(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()
    NAME = auto()
    NAME_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()


def set_null(body: bytes, path: tuple[str, ...]) -> bytes | None:
    """Return ``body`` with null for each value at ``path``, the names from the outermost object.

    Returns ``None`` if there is no such value or ``body`` breaks JSON's grammar.
    """
    position, depth, parts = _Position(path), len(path), []
    begin, done, at = -1, 0, 0
    while match := _TOKEN.match(body, at):
        at = match.end()
        if begin < 0 and len(position.names) == depth and position.reached:
            begin = match.start(1)
        if not position.advance(match[1]):
            return None
        if begin >= 0 and len(position.names) == depth and position.passed:
            parts += [body[done:begin], b"null"]
            begin, done = -1, at
    if not parts or not position.ended or body[at:].strip(b" \t\r\n"):
        return None
    return b"".join([*parts, body[done:]])


@dataclass(slots=True)
class _Position:
    """The position of the next token in a body, and the tokens that are valid there."""

    path: tuple[str, ...]
    expects: _Expects = _Expects.VALUE
    closings: list[bytes] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether the next token begins the value at ``path``."""
        return self.expects is _Expects.VALUE and self._is_at_path()

    @property
    def passed(self) -> bool:
        """Whether the last token ended the value at ``path``."""
        return self.expects is _Expects.COMMA_OR_END and self._is_at_path()

    @property
    def ended(self) -> bool:
        """Whether the outermost value has ended."""
        return self.expects is _Expects.COMMA_OR_END and not self.closings

    def advance(self, token: bytes) -> bool:
        """Advance over ``token``; return whether it is valid at this position."""
        match self.expects:
            case _Expects.VALUE | _Expects.VALUE_OR_END if token in _CLOSING:
                self.closings.append(_CLOSING[token])
                self.names.append(b"")
                is_object = token == b"{"
                self.expects = _Expects.NAME_OR_END if is_object else _Expects.VALUE_OR_END
            case _Expects.VALUE | _Expects.VALUE_OR_END if token not in b"}],:":
                self.expects = _Expects.COMMA_OR_END
            case _Expects.NAME | _Expects.NAME_OR_END if token.startswith(b'"'):
                self.names[-1] = token
                self.expects = _Expects.COLON
            case _Expects.COLON if token == b":":
                self.expects = _Expects.VALUE
            case _Expects.COMMA_OR_END if token == b"," and self.closings:
                in_object = self.closings[-1] == b"}"
                self.expects = _Expects.NAME if in_object else _Expects.VALUE
            case _Expects.COMMA_OR_END | _Expects.NAME_OR_END | _Expects.VALUE_OR_END if (
                self.closings[-1:] == [token]
            ):
                self.closings.pop()
                self.names.pop()
                self.expects = _Expects.COMMA_OR_END
            case _:
                return False
        return True

    def _is_at_path(self) -> bool:
        return self.path == tuple(map(_text, self.names))


def _text(name: bytes) -> str | None:
    try:
        return str(from_json(name))
    except ValueError:
        return None
