"""Answers that are kept, each for as long as the API says and a while longer."""

import re
from dataclasses import dataclass
from typing import Final

from nexus_publisher.entitlements.decision import Entitlement

MAX_FRESH_SECONDS: Final = 300.0
"""A longer ``max-age`` is taken for a mistake of a gateway."""

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])", re.IGNORECASE)
_NOT_KEPT: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,])", re.IGNORECASE)


def fresh_seconds(cache_control: str | None) -> float:
    """Return for how long an answer with this ``Cache-Control`` is fresh."""
    found = _MAX_AGE.search(cache_control or "")
    if found is None or _NOT_KEPT.search(cache_control or ""):
        return 0.0
    return min(float(found[1]), MAX_FRESH_SECONDS)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer; the times are those of the monotonic clock."""

    entitlement: Entitlement
    etag: str | None
    fresh_until: float
    usable_until: float


class Cache:
    """The latest answers of at most ``max_users`` users.

    One thread writes. Others read without a lock, since a look-up in a dictionary is one step.
    """

    def __init__(self, max_users: int) -> None:
        self._max_users = max_users
        self._kept: dict[str, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, user_id: str) -> Kept | None:
        """Return what is kept about a user, however old."""
        return self._kept.get(user_id)

    def put(self, user_id: str, kept: Kept) -> None:
        """Keep an answer; the one that was fetched longest ago makes room for it."""
        self._kept.pop(user_id, None)
        self._kept[user_id] = kept
        if len(self._kept) > self._max_users:
            del self._kept[next(iter(self._kept))]
