"""Reads the bodies of requests in JSON, within a size and a time."""

import asyncio
from typing import Final

from aiohttp import web

from nexus_contracts import MAX_BODY_BYTES
from nexus_service.media_types import media_type_of
from nexus_service.problems import Code, Problem, ProblemError

JSON: Final = "application/json"

BODY_SECONDS: Final = 10.0
"""For a request's body, so that a slow client holds a connection no longer."""


async def read_body(request: web.Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read the body of a request as it arrives.

    Raises:
        ProblemError: another media type, too large, too slow, or not readable.
    """
    headers = request.headers
    if media_type_of(headers.get("Content-Type"), headers.get("Content-Encoding")) != JSON:
        detail = f"Content-Type is {JSON}, in UTF-8, without Content-Encoding"
        raise ProblemError(Problem(Code.UNSUPPORTED_MEDIA_TYPE, detail))
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most_bytes:
                    detail = f"a body has at most {most_bytes} bytes"
                    raise ProblemError(Problem(Code.TOO_LARGE, detail))
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        raise ProblemError(Problem(Code.BODY_TIMEOUT, detail)) from None
    except web.RequestPayloadError:
        raise ProblemError(Problem(Code.INVALID, "the body can't be read")) from None
    return bytes(body)
