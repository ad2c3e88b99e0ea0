"""Answers as JSON, which the API sends and the command prints."""

import json
from datetime import datetime
from functools import lru_cache
from uuid import UUID


def as_json(value: object) -> str:
    """Return ``value`` as JSON in ASCII; times are in RFC 3339."""
    return json.dumps(value, default=_text, separators=(",", ":"))


@lru_cache(maxsize=1024)
def rfc_3339(moment: datetime) -> str:
    """Return a time in UTC in the format of RFC 3339, as exact as it is.

    Thousands of rows have some hundred times.
    """
    return moment.isoformat().replace("+00:00", "Z")


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return rfc_3339(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)
