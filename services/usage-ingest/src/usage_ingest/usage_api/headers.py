"""The headers that every answer has for browsers, and the files of the web component."""

import mimetypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
"""No inline script or style, nothing from elsewhere, and no form."""

TYPES: Final = {".js": "text/javascript", ".map": "application/json", ".css": "text/css"}
"""Python's own table follows the machine's."""

NAMED_BY_HASH: Final = re.compile(r"[.-](?=\w*[0-9])\w{8,}\.(?:js|css)$", re.ASCII)
"""A word of eight letters or more with a digit in it, as bundlers name files by their content."""

IMMUTABLE: Final = "public, max-age=31536000, immutable"


class WithHeaders:
    """An application whose every answer has the headers that browsers are held to."""

    def __init__(self, app: ASGIApp, frame_ancestors: Sequence[str] = ()) -> None:
        self._app = app
        ancestors = " ".join(frame_ancestors) or "'none'"
        self._headers = {
            "Content-Security-Policy": f"{POLICY}; frame-ancestors {ancestors}",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Files(StaticFiles):
    """Files that browsers ask about each time, but for those whose names have a hash in them."""

    @override
    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        named_by_hash = NAMED_BY_HASH.search(Path(full_path).name)
        response.headers["Cache-Control"] = IMMUTABLE if named_by_hash else "no-cache"
        return response


def component_files(directory: Path) -> Mount:
    """Serve the files of a folder: `/nexus-usage.js` and what else is in it."""
    for suffix, media_type in TYPES.items():
        mimetypes.add_type(media_type, suffix)
    return Mount("/", _Files(directory=directory, html=True))
