"""The bodies of the inspection API: JSON objects, and refusals that say what is wrong."""

import json
from typing import Any

from aiohttp import web


async def read_object(request: web.Request) -> dict[str, Any]:
    """Read a request's body.

    Raises:
        web.HTTPBadRequest: It is no JSON object.
    """
    try:
        described = await request.json()
    except ValueError as error:
        raise bad_request("the body is not JSON") from error
    if not isinstance(described, dict):
        raise bad_request("the body is not a JSON object")
    return described


def bad_request(message: str) -> web.HTTPBadRequest:
    """Return the refusal of a request."""
    return web.HTTPBadRequest(text=json.dumps({"error": message}), content_type="application/json")
