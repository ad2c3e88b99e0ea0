"""Reading of v1's form encoding: ``payload[value]=3``, ``expand[]=a``, ``expand[0]=a``."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from stripe_emulator.errors import StripeError, invalid_parameter

FormValue: TypeAlias = str | dict[str, "FormValue"] | list["FormValue"]
Form: TypeAlias = dict[str, FormValue]

_NAME = re.compile(r"(?P<head>[^\[\]]+)(?P<rest>(?:\[[^\[\]]*\])*)")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def decode(pairs: Iterable[tuple[str, str]]) -> Form:
    """Nest the pairs of a query string or form body by the brackets in their names.

    ``a[b]`` makes a map, ``a[]`` a list. ``a[0]`` stays a map with the key ``0``: only the
    parameter it belongs to determines whether that is an array or a map with such a key.

    Raises:
        StripeError: 400 when a name can't be read or contradicts an earlier one.
    """
    form: Form = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        if match is None:
            raise _unreadable(name)
        _put(form, [match["head"], *_SEGMENT.findall(match["rest"])], value, name)
    return form


def _put(form: Form, path: list[str], value: str, name: str) -> None:
    target: FormValue = form
    for here, following in pairwise(path):
        target = _descend(target, here, [] if following == "" else {}, name)
    _assign(target, path[-1], value, name)


def _descend(target: FormValue, key: str, fresh: FormValue, name: str) -> FormValue:
    if isinstance(target, dict):
        child = target.setdefault(key, fresh)
    elif isinstance(target, list) and key == "":
        target.append(fresh)
        child = fresh
    else:
        raise _unreadable(name)
    if type(child) is not type(fresh):
        raise _unreadable(name)
    return child


def _assign(target: FormValue, key: str, value: str, name: str) -> None:
    if isinstance(target, list) and key == "":
        target.append(value)
    elif isinstance(target, dict) and not isinstance(target.get(key), dict | list):
        target[key] = value
    else:
        raise _unreadable(name)


def _unreadable(name: str) -> StripeError:
    return invalid_parameter(name, f"Invalid request: the parameter name {name} can't be read.")
