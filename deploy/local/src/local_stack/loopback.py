"""HTTP requests to servers of this machine, past any proxy the environment names."""

import urllib.request
from collections.abc import Mapping

_ANSWER_SECONDS = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
    seconds: float = _ANSWER_SECONDS,
) -> bytes:
    """Request ``url`` and return the body of the answer.

    Raises:
        OSError: If there is no answer within ``seconds``, or its status is not in the 200s or 300s.
    """
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)  # noqa: S310 - only http
    with _DIRECT.open(request, timeout=seconds) as answer:
        content: bytes = answer.read()
        return content


def answers(url: str) -> bool:
    """Return whether ``url`` answers with success."""
    try:
        fetch(url)
    except OSError:
        return False
    return True
