"""Mutations of bodies: what a publisher's bug, a broken proxy or an attacker could send."""

import gzip
import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from fuzz.values import (
    CONFUSIONS,
    ENCODINGS,
    LEVELS,
    NUMBERS,
    PREFIXES,
    TIMES,
    WHOLES,
    WORDS,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The event to be mutated, and another one whose pieces and id are put into it."""

    event: dict[str, Any]
    other: dict[str, Any]

    def body(self) -> bytes:
        """Return the event as it is."""
        return _dump(self.event)


BodyMutation = Callable[[random.Random, Origin], bytes]


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _copied(event: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(_dump(event))
    return copied


def flip(rng: random.Random, origin: Origin) -> bytes:
    """Flip a few bits."""
    body = bytearray(_dump(origin.event))
    for _ in range(rng.randint(1, 6)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return bytes(body)


def truncate(rng: random.Random, origin: Origin) -> bytes:
    """Cut the end off."""
    body = _dump(origin.event)
    return body[: rng.randrange(len(body))]


def splice(rng: random.Random, origin: Origin) -> bytes:
    """Insert a piece of another message, or overwrite with it."""
    body, other = _dump(origin.event), _dump(origin.other)
    at, begin = rng.randrange(len(body)), rng.randrange(len(other))
    piece = other[begin : begin + rng.randint(1, 120)]
    return body[:at] + piece + body[at + rng.choice((0, len(piece))) :]


def lose(rng: random.Random, origin: Origin) -> bytes:
    """Cut out a piece."""
    body = _dump(origin.event)
    at = rng.randrange(len(body))
    return body[:at] + body[at + rng.randint(1, 40) :]


def confuse(rng: random.Random, origin: Origin) -> bytes:
    """Replace a value by one of another type."""
    event = _copied(origin.event)
    for _ in range(rng.randint(1, 2)):
        inside = rng.choice((event, event["data"]))
        if isinstance(inside, dict) and inside:
            inside[rng.choice(list(inside))] = deepcopy(rng.choice(CONFUSIONS))
    return _dump(event)


def drop(rng: random.Random, origin: Origin) -> bytes:
    """Remove a field, or add an unknown one."""
    event = _copied(origin.event)
    inside = rng.choice((event, event["data"]))
    if rng.random() < 0.5:
        del inside[rng.choice(list(inside))]
    else:
        inside[rng.choice(("x", "__proto__", "", "data_base64", "traceparent", "\x00"))] = (
            rng.choice(CONFUSIONS)
        )
    return _dump(event)


def repeat_key(rng: random.Random, origin: Origin) -> bytes:
    """Repeat a key with another value, which JSON allows."""
    event = _copied(origin.event)
    key = rng.choice(list(event))
    value = rng.choice((event[key], origin.other.get(key), rng.choice(CONFUSIONS)))
    twice = f"{json.dumps(key)}:{json.dumps(value)},".encode()
    body = _dump(event)
    if rng.random() < 0.5:
        return b"{" + twice + body[1:]
    return body[:-1] + b"," + twice[:-1] + b"}"


def number(rng: random.Random, origin: Origin) -> bytes:
    """Write a number beyond every column's range, or no JSON number."""
    event = _copied(origin.event)
    data, mark = event["data"], "@@number@@"
    places = [key for key, value in data.items() if isinstance(value, int)] or list(data)
    data[rng.choice(places)] = mark
    if "metadata" in data and rng.random() < 0.4:
        data.update({k: v for k, v in origin.event["data"].items() if k != "metadata"})
        data["metadata"] = {"n": mark}
    return _dump(event).replace(_dump(mark), rng.choice(NUMBERS))


def words(rng: random.Random, origin: Origin) -> bytes:
    """Write a string that a parser or the database may refuse."""
    event = _copied(origin.event)
    mark = "@@word@@"
    texts = [key for key, value in event["data"].items() if isinstance(value, str)]
    if "metadata" in event["data"] and rng.random() < 0.5:
        event["data"]["metadata"] = rng.choice(({"k": mark}, {mark: 1}, {"a": [mark, {mark: {}}]}))
    elif texts:
        event["data"][rng.choice(texts)] = mark
    return _dump(event).replace(_dump(mark), rng.choice(WORDS))


def deepen(rng: random.Random, origin: Origin) -> bytes:
    """Nest deeply."""
    levels = rng.choice(LEVELS)
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = b"1" if opening != b"[" else b""
    deep = opening * levels + inner + closing * levels
    if rng.random() < 0.2:
        return deep
    event = _copied(origin.event)
    key = "metadata" if "metadata" in event["data"] else "extra"
    event["data"][key] = {"m": "@@deep@@"}
    return _dump(event).replace(b'"@@deep@@"', deep)


def encode(rng: random.Random, origin: Origin) -> bytes:
    """Use another encoding, or compress it."""
    body = _dump(origin.event)
    how = rng.randrange(4)
    if how == 0:
        return gzip.compress(body, mtime=0)
    if how == 1:
        return rng.choice(PREFIXES) + body
    return body.decode().encode(rng.choice(ENCODINGS))


def reform(rng: random.Random, origin: Origin) -> bytes:
    """Write the same in another form; it stays valid."""
    shuffled = list(origin.event.items())
    rng.shuffle(shuffled)
    text = json.dumps(dict(shuffled), indent=rng.choice((None, 1, 8)))
    return text.encode() + b"\n" * rng.randrange(3)


def surround(rng: random.Random, origin: Origin) -> bytes:
    """Wrap the body, append to it, or replace it."""
    body = _dump(origin.event)
    wrapped = (b"[" + body + b"]", b'{"event":' + body + b"}", _dump(body.decode()))
    followed = (body + body, body + b"\x00", body + b" " * 260_000, body + _dump(origin.other))
    return rng.choice((*wrapped, *followed, *WHOLES, rng.randbytes(rng.randint(1, 4000))))


def reidentify(rng: random.Random, origin: Origin) -> bytes:
    """Write the id in another form, or use another event's."""
    event, id_ = _copied(origin.event), UUID(origin.event["id"])
    spelt = (str(id_).upper(), f"urn:uuid:{id_}", f"{{{id_}}}", id_.hex, f" {id_} ")
    none = (id_.int, str(id_)[:-1], str(UUID(int=0)), str(UUID(int=2**128 - 1)))
    event["id"] = rng.choice((*spelt, *none, origin.other["id"], origin.other["id"]))
    return _dump(event)


def retime(rng: random.Random, origin: Origin) -> bytes:
    """Write an invalid time, or one far from now."""
    event = _copied(origin.event)
    event["time"] = rng.choice(TIMES)
    return _dump(event)


def retype(rng: random.Random, origin: Origin) -> bytes:
    """Write another type or version."""
    event = _copied(origin.event)
    name, _, _ = event["type"].rpartition(".")
    versions = [f"{name}.{version}" for version in ("v2", "v99", "v", "v-1", "v1.v1", "V1", "v1 ")]
    if rng.random() < 0.8:
        event["type"] = rng.choice((*versions, name, "", "#", "user.created.v1", "usage.v1"))
    else:
        event["specversion"] = rng.choice(("0.3", "1.1", "2.0", 1.0, "", None))
    return _dump(event)


BODY_MUTATIONS: Final[tuple[BodyMutation, ...]] = (
    flip, flip, truncate, splice, lose, confuse, confuse, drop, repeat_key, number, words, deepen,
    encode, reform, reform, surround, reidentify, retime, retype,
)  # fmt: skip
