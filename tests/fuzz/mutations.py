"""Mutations of messages, bodies and properties; one seed determines the whole run."""

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fuzz.bodies import BODY_MUTATIONS, Origin
from integration.messaging.wire import nested, short, table

Fields = dict[str, bytes]

MUTATED_BODY: Final = 0.85
ODD_PROPERTIES: Final = 0.3
MISROUTED: Final = 0.02
COPIED: Final = 0.03
"""Shares of all messages: with a mutated body, with odd properties as well, and so on."""

PLAIN: Final[Mapping[str, bytes]] = {"delivery_mode": b"\x02", "message_id": short(b"m")}


@dataclass(frozen=True, slots=True)
class Target:
    """The routing key of messages, the publishing user, and a key that `CC` may add.

    Without ``cc`` it is the exchange `internal`, which refuses unroutable messages.
    """

    key: str
    user: str
    cc: str = ""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as it is sent; ``copies`` says that `CC` also routes it elsewhere."""

    body: bytes = field(repr=False)
    key: str
    properties: Mapping[str, bytes] = field(default_factory=lambda: PLAIN, repr=False)
    copies: bool = False


def _properties(rng: random.Random, target: Target) -> tuple[Fields, bool]:
    """Return odd properties, and whether they route a copy elsewhere."""
    fields: Fields = {"delivery_mode": rng.choice((b"\x01", b"\x02"))}
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(PROPERTIES))
        fields[name] = PROPERTIES[name](rng)
    if "expiration" in fields:
        # The broker records the expiry in the headers, which must stay readable.
        fields.pop("headers", None)
    if rng.random() < 0.1:
        fields["user_id"] = short(target.user.encode())
    if target.cc and rng.random() < COPIED:
        key = b"S" + struct.pack(">I", len(target.cc)) + target.cc.encode()
        fields["headers"] = table((b"CC", b"A" + struct.pack(">I", len(key)) + key))
        return fields, True
    return fields, False


def _some(*choices: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: rng.choice(choices)


def _long(value: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(value)) + value


PROPERTIES: Final[dict[str, Callable[[random.Random], bytes]]] = {
    "content_type": _some(
        short(b"application/json"),
        short(b"text/html"),
        short(b""),
        short(b"\xff"),
        short(b"a" * 255),
    ),
    "content_encoding": _some(short(b"gzip"), short(b"utf-16"), short(b"\x00")),
    "message_id": _some(short(b""), short(b"same"), short(b"\xff\xfe"), short(b"m" * 255)),
    "type": _some(short(b"user.created.v1"), short(b"\xc3("), short(b"")),
    "timestamp": _some(
        struct.pack(">Q", 0), struct.pack(">Q", 2**64 - 1), struct.pack(">Q", 1_770_000_000_000)
    ),
    "priority": _some(b"\x00", b"\x09", b"\xff"),
    "correlation_id": _some(short(b"c"), short(b"\x80")),
    "reply_to": _some(short(b"nowhere"), short(b"amq.rabbitmq.reply-to-not")),
    "expiration": _some(short(b"0"), short(b"1"), short(b"600000"), short(b"600000")),
    "app_id": _some(short(b"hub"), short(b"\x00")),
    "headers": _some(
        table(
            (b"nexus-attempt", b"I" + struct.pack(">i", 99)), (b"nexus-waits", b"I" + b"\xff" * 4)
        ),
        table((b"nexus-reason", _long(b"unreadable")), (b"nexus-requeue-to", _long(b"elsewhere"))),
        table((b"x-delivery-count", b"I" + struct.pack(">i", 15))),
        table((b"x-death", _long(b"x")), (b"x-first-death-queue", _long(b"y"))),
        table((b"x-death", b"A" + struct.pack(">I", 0))),
        table((b"t", b"T" + struct.pack(">Q", 2**63)), (b"\xff", b"V")),
        table((b"d", b"D\x02" + b"\x7f" * 4), (b"f", b"f" + b"\x7f\x00\x00\x00")),
        table((b"h", _long(b"h" * 100_000))),
        table(*((f"h{n}".encode(), b"V") for n in range(500))),
        nested(40),
        nested(2000),
        table(),
    ),
}


def mutated(rng: random.Random, origin: Origin, target: Target) -> WireMessage:
    """Return a message of an event with its body, its properties, or both mutated."""
    body, fields, copies = origin.body(), dict(PLAIN), False
    is_mutated = rng.random() < MUTATED_BODY
    if is_mutated:
        body = rng.choice(BODY_MUTATIONS)(rng, origin)
    if not is_mutated or rng.random() < ODD_PROPERTIES:
        fields, copies = _properties(rng, target)
    key = target.key
    if target.cc and not copies and rng.random() < MISROUTED:
        key = rng.choice((f"{target.key}.x", "tool", "", "#", f"{target.key[:-1]}7"))
        # A message that expires in `unroutable` is lost.
        fields.pop("expiration", None)
    return WireMessage(body, key, fields, copies)
