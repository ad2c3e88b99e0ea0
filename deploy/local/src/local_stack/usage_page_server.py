"""The server of the page with ``<nexus-usage>``: its files, its users, and their tokens."""

import argparse
import json
import signal
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typing_extensions import override

from local_stack.ports import LOOPBACK
from local_stack.tokens import sign_token
from local_stack.usage_page import HOST, PRIVATE_KEY


class PageRequest(SimpleHTTPRequestHandler):
    """A request of a browser. Whoever asks for a user's token gets it: for demo users alone."""

    def __init__(self, *args: Any, directory: str, state: Path, key: Ed25519PrivateKey) -> None:
        self._state = state
        self._key = key
        super().__init__(*args, directory=directory)

    @override
    def do_GET(self) -> None:
        """Answer with the page, a file of the component, or who may be signed in."""
        path = urlsplit(self.path).path
        if path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", "/demo/index.html")
            self.end_headers()
        elif path == "/readyz":
            self._answer({"status": "ready"})
        elif path == "/demo/host.json":
            self._answer(self._host())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Sign a token for the user that the page names."""
        address = urlsplit(self.path)
        wanted = parse_qs(address.query).get("user", [""])[0]
        user = next((each for each in self._host()["users"] if each["id"] == wanted), None)
        if address.path != "/demo/token" or user is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._answer({"token": sign_token(self._key, user["id"], user["account"])})

    @override
    def end_headers(self) -> None:
        """Add what a careful host sends: no script and no style but its own."""
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
            f" connect-src 'self' {self._host()['usage_api']}; base-uri 'none'; form-action 'none'"
        )
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    @override
    def list_directory(self, path: Any) -> None:
        """List no folder."""
        self.send_error(HTTPStatus.NOT_FOUND)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a request's line names a user."""

    def _host(self) -> dict[str, Any]:
        host: dict[str, Any] = json.loads((self._state / HOST).read_text(encoding="utf-8"))
        return host

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--component", required=True)
    parser.add_argument("state", type=Path)
    parsed = parser.parse_args()
    key = load_pem_private_key((parsed.state / PRIVATE_KEY).read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    handler = partial(PageRequest, directory=parsed.component, state=parsed.state, key=key)
    with ThreadingHTTPServer((LOOPBACK, parsed.port), handler) as server:
        # `shutdown` waits for the loop that this very thread runs.
        signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
