"""HTTP requests to servers of this machine, past any proxy the environment names."""

import urllib.request
from collections.abc import Mapping

_ANSWER_SECONDS = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, *, headers: Mapping[str, str] | None = None) -> bytes:
    """Get ``url`` and return the body of the answer.

    Raises:
        OSError: If nobody answers, or the answer's status is not of the 200s or 300s.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - only http
    with _DIRECT.open(request, timeout=_ANSWER_SECONDS) as answer:
        body: bytes = answer.read()
        return body


def answers(url: str) -> bool:
    """Tell whether ``url`` answers with success."""
    try:
        fetch(url)
    except OSError:
        return False
    return True
