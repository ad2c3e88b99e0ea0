"""The objects of one kind: by id, the newest first, and as they were at an earlier time."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from stripe_emulator.errors import no_such


class Objects:
    """Stored copies of JSON objects; what is read may not be changed, only put anew."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._objects: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, list[tuple[float, dict[str, Any] | None]]] = {}

    def __contains__(self, id_: str) -> bool:
        return id_ in self._objects

    def put(self, changed: dict[str, Any], now: float) -> dict[str, Any]:
        """Store an object under its id, as it is at ``now`` (unix seconds)."""
        kept = copy.deepcopy(changed)
        self._objects[kept["id"]] = kept
        self._versions.setdefault(kept["id"], []).append((now, kept))
        return kept

    def remove(self, id_: str, now: float) -> dict[str, Any]:
        """Delete an object and return what it was; 404 when there is none."""
        removed = self.get(id_)
        del self._objects[id_]
        self._versions[id_].append((now, None))
        return removed

    def get(self, id_: str, param: str = "id", status: int = 404) -> dict[str, Any]:
        """Return an object.

        Raises:
            StripeError: ``status`` (404 for one in the path, 400 for one in a parameter).
        """
        found = self._objects.get(id_)
        if found is None:
            raise no_such(self._noun, id_, param, status)
        return found

    def newest_first(self) -> Iterator[dict[str, Any]]:
        """Yield all objects by their creation, the newest first."""
        return iter([*reversed(self._objects.values())])

    def as_of(self, moment: float) -> list[dict[str, Any]]:
        """Return the objects as they were at ``moment`` (unix seconds), the newest first."""
        seen = (
            next((version for at, version in reversed(versions) if at <= moment), None)
            for versions in reversed(self._versions.values())
        )
        return [version for version in seen if version is not None]


def matching(one: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Return whether an object has the value of every given filter."""
    return all(one.get(name) == value for name, value in filters.items())
