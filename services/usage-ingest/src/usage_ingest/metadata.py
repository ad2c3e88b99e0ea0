"""What the ledger keeps of a run's metadata, which no run is refused for: pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(allow_nan=False)
_NULL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a null character, after no odd number of backslashes."""


def stored_metadata(metadata: Mapping[str, Any] | None) -> str | None:
    """Return ``metadata`` as JSON text, or ``None`` if PostgreSQL can't store it as ``jsonb``.

    That is so of null characters and of numbers beyond a double, which JSON has and ``jsonb`` has
    not (https://www.postgresql.org/docs/current/datatype-json.html).
    """
    if metadata is None:
        return None
    try:
        text = _ENCODER.encode(metadata)
    except ValueError:
        return None
    return None if _NULL.search(text) else text
