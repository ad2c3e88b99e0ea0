"""A usage API and a host page on ports of their own, as `<nexus-usage>` meets them."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

ADA: Final = "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f"
BOB: Final = "018f3a52-7c1e-7d3a-9f00-000000000b0b"

ACME: Final = "018f3a52-7c1e-7d3a-9f00-00000000acce"
"""An account of several users."""

Json = dict[str, Any]

METERS: Final = {
    "tool_call_executed": {"display_name": "Tool runs", "unit": None},
    "llm_cost_micros": {"display_name": "LLM cost", "unit": "micro-USD"},
}

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def midnight(days_ago: int = 0) -> datetime:
    """Return the start of a UTC day."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days_ago)


def at(time: datetime) -> str:
    """Write a time as the API does."""
    return time.isoformat().replace("+00:00", "Z")


def run(server: str, tool: str, runs: int, *, days_ago: int = 0, tokens: int = 0) -> Json:
    """Build an entry of ``recorded``."""
    start = at(midnight(days_ago))
    return {"start": start, "server_id": server, "tool_name": tool, "runs": runs, "tokens": tokens}


def limit(name: str, used: int, most: int, *, hard: bool = True, server: str = "*") -> Json:
    """Build an entry of ``limits``, for this month."""
    first = midnight().replace(day=1)
    return {
        "name": name,
        "meter": "tool_call_executed",
        "server_id": server,
        "tool_name": "*",
        "limit": most,
        "used": used,
        "remaining": most - used,
        "hard": hard,
        "period_start": at(first),
        "period_end": at((first + timedelta(days=32)).replace(day=1)),
    }


@dataclass
class UserData:
    """What the API answers about one user."""

    recorded: list[Json] = field(default_factory=list)
    amounts: list[Json] | None = field(default_factory=list)
    limits: list[Json] = field(default_factory=list)
    plan: str | None = "Pro"
    denied: list[Json] = field(default_factory=list)
    account: str | None = None
    """None: the user's own."""


class Request(BaseHTTPRequestHandler):
    """A request to one of the two servers; neither logs."""

    protocol_version = "HTTP/1.1"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send an answer, and none to a client that has hung up."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class UsageApi:
    """``/v1/usage`` and ``/v1/entitlements`` with CORS; tokens are valid while it says so."""

    def __init__(self) -> None:
        self.url = ""
        self.origin = ""
        self.users: dict[str, UserData] = {}
        self.valid: dict[str, str] = {}
        """User by token."""
        self.requests: list[tuple[str, str]] = []
        """Path with query, and cookies, of each request."""
        self.status: int | None = None
        """The answer to all, in place of the figures."""
        self.text: str | None = None
        """The body of every answer, in place of the figures."""
        self.plans = True
        """False: as a service that has no file of plans."""
        self.about: str | None = None
        """The user that every answer is about, whoever asks."""
        self.days_off = 0
        """By how many days the answers' spans are earlier than asked."""
        self.period_days = 31
        """How long the billing period is, which ends with the month."""
        self.fault: Callable[[Request], None] | None = None
        """Answers every request, in place of the figures."""
        self.open = Event()
        """Requests wait for it."""
        self.reset()

    def reset(self) -> None:
        """Forget users, tokens and requests."""
        self.users, self.valid, self.requests = {}, {}, []
        self.status, self.text, self.about, self.plans = None, None, None, True
        self.days_off, self.period_days, self.fault = 0, 31, None
        self.open.set()

    def token(self, user: str) -> str:
        """Return a fresh token for ``user``, whose signature is only looked up."""
        claims = json.dumps({"sub": user, "aud": "nexus-usage"}).encode()
        payload = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
        token = f"e30.{payload}.{secrets.token_urlsafe(16)}"
        self.valid[token] = user
        return token

    def respond(self, path: str, authorization: str) -> tuple[int, Json]:
        """Return status and body of the answer to a GET."""
        user = self.valid.get(authorization.removeprefix("Bearer "))
        if user is None:
            return 401, {"code": "token_refused"}
        if self.status is not None:
            return self.status, {"code": "told_so"}
        address = urlsplit(path)
        data = self.users.get(user, UserData())
        if address.path == f"/v1/entitlements/{user}":
            if not self.plans:
                return 404, {"code": "not_found"}
            return 200, self._entitlements(user, data)
        if address.path == "/v1/usage":
            return 200, self._usage(user, data, parse_qs(address.query))
        return 403, {"code": "forbidden"}

    def _usage(self, user: str, data: UserData, query: dict[str, list[str]]) -> Json:
        [by] = query["by"]
        step = timedelta(days=1) if by == "day" else timedelta(hours=1)
        asked, until = (datetime.fromisoformat(query[name][0]) for name in ("from", "to"))
        off = timedelta(days=self.days_off)
        first = asked - (asked - midnight()) % step - off
        end = until + (midnight() - until) % step - off

        def within(each: Json) -> bool:
            return first <= datetime.fromisoformat(each["start"]) < end

        answer: Json = {
            "user_id": user,
            "account_id": data.account or user,
            "scope": "user" if data.account is None else "account",
            "from": at(first),
            "to": at(end),
            "by": by,
            "as_of": at(datetime.now(UTC)),
            "recorded": list(filter(within, data.recorded)),
        }
        if self.plans:
            answer["meters"] = METERS
        if data.amounts is not None:
            answer["amounts"] = list(filter(within, data.amounts))
        return answer

    def _entitlements(self, user: str, data: UserData) -> Json:
        first = midnight().replace(day=1)
        return {
            "user_id": user,
            "account_id": data.account or user,
            "plan": None if data.plan is None else data.plan.lower(),
            "plan_name": data.plan,
            "status": None if data.plan is None else "active",
            "features": [],
            "denied": data.denied,
            "limits": data.limits,
            "rate_limits": [{"server_id": "*", "per_minute": 60}],
            "period": {
                "start": at(first - timedelta(days=self.period_days - 31)),
                "end": at(first + timedelta(days=31)),
                "basis": "stripe",
            },
            "seats": None,
            "as_of": at(datetime.now(UTC)),
        }

    def handler(self) -> type[Request]:
        """Return what handles this API's requests."""
        api = self

        class ApiRequest(Request):
            def do_OPTIONS(self) -> None:
                headers = {"Access-Control-Allow-Headers": "authorization"}
                self.answer(204, b"", {**self._cors(), **headers})

            def do_GET(self) -> None:
                api.requests.append((self.path, self.headers.get("Cookie", "")))
                api.open.wait(30)
                if api.fault is not None:
                    api.fault(self)
                    return
                status, body = api.respond(self.path, self.headers.get("Authorization", ""))
                if api.about is not None:
                    body["user_id"] = api.about
                text = json.dumps(body) if api.text is None else api.text
                # As a cache that knows no users would like it: the page must not use it.
                headers = {"Content-Type": "application/json", "Cache-Control": "max-age=600"}
                self.answer(status, text.encode(), {**self._cors(), **headers})

            def _cors(self) -> dict[str, str]:
                return {"Access-Control-Allow-Origin": api.origin, "Vary": "Origin"}

        return ApiRequest


class TokenSource(Protocol):
    """A usage API, and who signs tokens for it."""

    url: str

    def token(self, user: str) -> str:
        """Return a fresh token for ``user``."""


class HostPage:
    """The demo page as a site with a strict Content Security Policy serves it."""

    def __init__(self, folder: Path, api: TokenSource) -> None:
        self.url = ""
        self.violations: list[str] = []
        """Reports of what the policy forbade."""
        self.tokens_asked = 0
        self.gives_tokens = True
        self._folder = folder
        self._api = api

    def reset(self) -> None:
        """Forget what happened, and give tokens again."""
        self.violations, self.tokens_asked, self.gives_tokens = [], 0, True

    def policy(self) -> str:
        """Return the strictest policy under which the component must work."""
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
            f"connect-src 'self' {self._api.url}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'; "
            "report-uri /violations"
        )

    def respond(self, method: str, path: str) -> tuple[int, bytes, str]:
        """Return status, body and type of an answer."""
        address = urlsplit(path)
        if address.path == "/demo/host.json":
            users = [{"id": ADA, "name": "Ada"}, {"id": BOB, "name": "Bob"}]
            host = {"usage_api": self._api.url, "users": users}
            return 200, json.dumps(host).encode(), "application/json"
        if address.path == "/demo/token" and method == "POST":
            self.tokens_asked += 1
            if not self.gives_tokens:
                return 403, b"{}", "application/json"
            [user] = parse_qs(address.query)["user"]
            return 200, json.dumps({"token": self._api.token(user)}).encode(), "application/json"
        if address.path == "/plain.html":
            return (
                200,
                b"<!doctype html><html lang=en><title>plain</title><main></main>",
                "text/html",
            )
        file = self._folder / address.path.removeprefix("/")
        if file.suffix in _TYPES and file.is_file():
            return 200, file.read_bytes(), _TYPES[file.suffix]
        return 404, b"", "text/plain"

    def handler(self) -> type[Request]:
        """Return what handles this page's requests."""
        page = self

        class PageRequest(Request):
            def do_GET(self) -> None:
                status, body, kind = page.respond("GET", self.path)
                policy = {"Content-Security-Policy": page.policy(), "Content-Type": kind}
                self.answer(status, body, policy)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/violations":
                    page.violations.append(body.decode())
                    self.answer(204, b"", {})
                    return
                status, body, kind = page.respond("POST", self.path)
                self.answer(status, body, {"Content-Type": kind})

        return PageRequest


@contextmanager
def serving(handler: Callable[[], type[Request]]) -> Iterator[str]:
    """Serve on a free port while the context lasts; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler())
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
