"""A message with strange properties harms nobody: neither the reader nor its neighbours."""

import struct

from aio_pika.abc import AbstractIncomingMessage

from integration.messaging.bench import Bench
from integration.messaging.wire import nested, publish_with, short, table
from nexus_contracts import ToolExecuted, read_event
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.topology import MAX_MESSAGE_BYTES
from support.events import tool_run

KEY = "tool.executed.v1"

STRANGE: dict[str, dict[str, bytes]] = {
    "none": {},
    "timestamp beyond year 9999": {"timestamp": struct.pack(">Q", 2**64 - 1)},
    "timestamp in milliseconds": {"timestamp": struct.pack(">Q", 1_770_000_000_000)},
    "message id that is no text": {"message_id": short(b"\xff\xfe")},
    "type that is no text": {"type": short(b"\xc3("), "content_type": short(b"\xff")},
    "header name that is no text": {"headers": table((b"\xff", b"V"))},
    "header time beyond year 9999": {"headers": table((b"t", b"T" + struct.pack(">Q", 2**63)))},
    "headers nested deeply": {"headers": nested(3000)},
    "huge headers": {"headers": table((b"h", b"S" + struct.pack(">I", 120_000) + b"h" * 120_000))},
    "expiration": {"expiration": short(b"600000")},
    "user id": {"user_id": short(b"admin")},
    "copies": {
        "headers": table(
            (b"CC", b"A" + struct.pack(">I", 21) + b"S" + struct.pack(">I", 16) + KEY.encode())
        )
    },
    "our own headers": {
        "headers": table(
            (b"nexus-attempt", b"I" + struct.pack(">i", 99)),
            (b"x-death", b"S" + struct.pack(">I", 1) + b"x"),
        )
    },
    "priority and reply": {"priority": b"\xff", "reply_to": short(b"nowhere")},
}


async def read(delivery: Delivery) -> Outcome:
    """Handle a delivery by reading it, as every service does first."""
    read_event(delivery.message.body, [ToolExecuted])
    return Done()


async def test_strange_properties_harm_neither_a_good_message_nor_its_neighbours(
    bench: Bench,
) -> None:
    """A good body is handled whatever is around it; a bad one alone becomes a dead letter."""
    bench.behave = read
    good = [tool_run() for _ in range(len(STRANGE) + 2)]

    async with bench.consuming():
        await bench.vhost.publish(good[0])
        for event, (name, properties) in zip(good[1:], STRANGE.items(), strict=False):
            await publish_with(bench.vhost, event.body(), KEY, properties)
            await publish_with(bench.vhost, f"no event: {name}".encode(), KEY, properties)
        await bench.vhost.publish(good[-1])
        letters = await bench.dead_letters(len(STRANGE))
        await bench.all_done(len(good))

    assert {letter.body.decode() for letter in letters} == {f"no event: {name}" for name in STRANGE}
    assert {letter.headers["nexus-reason"] for letter in letters} == {"unreadable"}
    assert {letter.headers["nexus-attempts"] for letter in letters} == {1}
    assert {name for letter in letters for name in foreign_headers(letter)} == set()
    assert not [
        letter for letter in letters if letter.expiration or letter.user_id or letter.reply_to
    ]
    assert await bench.waiting() == 0


async def test_bodies_of_any_size_become_dead_letters_unchanged(bench: Bench) -> None:
    """None, and the most that the broker takes: byte for byte, and what came behind is handled."""
    bench.behave = read
    huge = b"\x00\xff" * (MAX_MESSAGE_BYTES // 2)

    async with bench.consuming():
        await bench.vhost.publish_raw(huge, KEY)
        await bench.vhost.publish_raw(b"", KEY)
        await bench.vhost.publish(tool_run())
        letters = await bench.dead_letters(2)
        await bench.all_done(1)

    assert sorted(len(letter.body) for letter in letters) == [0, len(huge)]
    assert huge in [letter.body for letter in letters]


def foreign_headers(letter: AbstractIncomingMessage) -> set[str]:
    """Return the headers of a dead letter that are not ours, nor of our looking at it."""
    ours = {name for name in letter.headers if name.startswith("nexus-")}
    return letter.headers.keys() - ours - {"x-delivery-count"}
