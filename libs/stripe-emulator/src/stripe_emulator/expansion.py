"""Expansion: ids in an answer are replaced by their objects, and tiers are shown, where asked for.

Source: https://docs.stripe.com/expand
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from stripe_emulator.errors import StripeError, invalid_parameter

MAX_LEVELS = 4
Retrieve = Callable[[str], Mapping[str, Any]]


def require_expandable(paths: list[str], known: frozenset[str]) -> None:
    """Refuse a path that is too deep, or that an endpoint's answer does not have.

    Raises:
        StripeError: 400.
    """
    for path in paths:
        if path.count(".") >= MAX_LEVELS:
            message = f"You cannot expand more than {MAX_LEVELS} levels of a property."
            raise invalid_parameter("expand", message)
        if path not in known:
            raise _not_expandable(path)


def expanded(
    answer: Mapping[str, Any], paths: list[str], retrieve: Mapping[str, Retrieve]
) -> Mapping[str, Any]:
    """Return an answer with the objects that ``paths`` lead to.

    Args:
        answer: The answer's body, in which prices have their tiers.
        paths: Such as ``data.product``.
        retrieve: Returns an object by its id, by the name of the field that has the id.
    """
    shown: dict[str, Any] = without_tiers(answer, frozenset(paths))
    for path in sorted(paths, key=lambda path: path.count(".")):
        _expand(shown, path.split("."), retrieve)
    return shown


def without_tiers(value: Any, paths: frozenset[str] = frozenset(), path: str = "") -> Any:
    """Return a copy without the tiers of prices, but for those that ``paths`` lead to."""
    if isinstance(value, list):
        return [without_tiers(item, paths, path) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: without_tiers(inner, paths, f"{path}{name}.")
        for name, inner in value.items()
        if name != "tiers" or f"{path}tiers" in paths
    }


def _expand(value: Any, steps: list[str], retrieve: Mapping[str, Retrieve]) -> None:
    if isinstance(value, list):
        for item in value:
            _expand(item, steps, retrieve)
        return
    if not isinstance(value, dict):
        return
    name, *rest = steps
    if isinstance(value.get(name), str) and name in retrieve:
        value[name] = copy.deepcopy(dict(retrieve[name](value[name])))
    if rest:
        _expand(value.get(name), rest, retrieve)


def _not_expandable(path: str) -> StripeError:
    return invalid_parameter("expand", f"This property cannot be expanded ({path}).")
