"""Random answers to a call to Stripe: its own, a gateway's, invalid and truncated ones."""

import json
import random
from dataclasses import dataclass
from typing import Any, Final

from support.http_servers import response

STATUSES: Final = (
    *(200, 201, 202, 204, 206, 300, 301, 302, 304, 307, 400, 401, 402, 403, 404, 405, 407, 408),
    *(409, 410, 413, 418, 421, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 599),
)
REFUSING: Final = frozenset(STATUSES) - {200, 201, 202, 204, 206, 304}
"""Statuses of refusals, with a body."""
OWN_ID: Final = "req_0123456789abcd"
REQUEST_IDS: Final = (None, None, "", "0", "4f2c-11", "|a.b.", "req_", "req ä", *[OWN_ID] * 8)

REFUSALS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "invalid_request_error", "message": "No such customer: 'cus_1'"},
    {"type": "invalid_request_error", "message": "Invalid email", "code": "email_invalid"},
    {"type": "invalid_request_error", "message": "bad", "param": "payload[value]"},
    {"type": "card_error", "code": "card_declined"},
    {"type": "idempotency_error", "message": "Keys for idempotent requests ..."},
    {"type": "api_error", "message": None},
)
SUCCESSES: Final[tuple[dict[str, Any], ...]] = (
    {"object": "billing.meter_event", "identifier": "r-other"},
    {"object": "customer", "email": "a@example.com"},
    {"object": "customer", "id": 5, "created": 1},
    {"object": "customer", "id": "../cus_1", "created": 1, "metadata": {}},
    {"object": "list", "data": [], "has_more": True},
    {"object": "list", "data": None, "has_more": False},
    {"object": "list", "data": [{"id": "x"}], "has_more": False},
    {"object": "list", "data": [{"object": "billing.meter", "id": "m"}], "has_more": False},
    {"object": "search_result", "data": {}, "has_more": True, "next_page": 5},
    {"id": "cus_1"},
    {"ok": True},
)
SCRAPS: Final[tuple[Any, ...]] = (True, 0, 1e308, [], {}, ["a"])
TEXT_SCRAPS: Final = ("", "\x00", "\ud800", "a\nb")
BROKEN: Final[dict[str, tuple[Any, ...]]] = {
    "type": (*SCRAPS, *TEXT_SCRAPS, None),
    "code": (*SCRAPS, *TEXT_SCRAPS),
    "param": (*SCRAPS, *TEXT_SCRAPS),
    "message": SCRAPS,
}
"""Values that no error object of Stripe's has, by field."""

TEXTS: Final = (
    b"",
    b"OK",
    b"null",
    b"<html><body>407 Proxy Authentication Required</body></html>",
    b"{",
    b'{"error"',
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'{"a":' * 3000,
    b"1" * 5000,
    b"NaN",
)
HEADERS: Final = (
    ("Content-Type", "text/html"),
    ("Content-Type", "application/json; charset=utf-99"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "br"),
    ("Date", "Sat, 99 Foo 99999 99:99:99 +9999"),
    ("Stripe-Should-Retry", "maybe"),
    ("Stripe-Rate-Limited-Reason", "\udcff"),
    ("Stripe-Notice", "look here"),
    ("Idempotent-Replayed", "true"),
    ("Retry-After", "-1"),
    ("Set-Cookie", "a=b; Domain=.example.com; Expires=never"),
    ("Location", "http://127.0.0.1:1/elsewhere"),
    ("Transfer-Encoding", "chunked"),
    ("X" * 300, "y" * 3000),
    ("WWW-Authenticate", 'Basic realm="proxy"'),
)


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An answer as bytes; ``refusal`` is whether it is a complete refusal of Stripe's own."""

    status: int
    bytes: bytes
    refusal: bool


def random_answer(rng: random.Random) -> WireAnswer:
    """Return an answer that is not a success for any call of the tests."""
    status = rng.choice(STATUSES)
    request_id = rng.choice(REQUEST_IDS)
    body, stripes = _body(rng)
    headers = dict(rng.sample(HEADERS, rng.choice((0, 0, 1, 2))))
    if request_id is not None:
        headers["Request-Id"] = request_id
    whole = response(status, body, headers)
    cut = rng.randrange(len(whole)) if rng.random() < 0.25 else len(whole)
    undisturbed = cut == len(whole) and not headers.keys() & {
        "Content-Encoding",
        "Transfer-Encoding",
    }
    own = stripes and request_id == OWN_ID and undisturbed and status in REFUSING
    return WireAnswer(status, whole[:cut], own)


def _body(rng: random.Random) -> tuple[bytes, bool]:
    """Return a body, and whether it holds an error object of Stripe's."""
    kind = rng.choice(("text", "success", "refusal", "refusal", "broken", "foreign"))
    value: object = None
    match kind:
        case "text":
            return rng.choice(TEXTS), False
        case "success":
            value = rng.choice(SUCCESSES)
        case "refusal":
            value = {"error": rng.choice(REFUSALS)}
        case "broken":
            field = rng.choice(list(BROKEN))
            value = {"error": {**rng.choice(REFUSALS), field: rng.choice(BROKEN[field])}}
        case _:
            scrap = rng.choice((*SCRAPS, *TEXT_SCRAPS, "forbidden", None))
            foreign = {rng.choice(("error", "errors", "message")): scrap}
            value = rng.choice((foreign, [foreign]))
    return json.dumps(value).encode(), kind == "refusal"
