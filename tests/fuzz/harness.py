"""Publishing thousands of mutated messages, and finding the queue where each ended."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import aiormq
from aio_pika.abc import AbstractIncomingMessage

from fuzz.bodies import Origin
from fuzz.mutations import Target, WireMessage, mutated
from integration.messaging.wire import RawProperties
from nexus_contracts import ContractError, EventData, read_event
from nexus_messaging.properties import tolerate_invalid_properties
from nexus_messaging.topology import TIERS, UNROUTABLE, dead_letter_queue
from support.platform import Platform
from support.vhost import Vhost
from support.waiting import eventually

AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter or unroutable message: its body, and the reason."""

    body: bytes
    reason: str


def mixed(
    rng: random.Random,
    good: Sequence[Origin],
    others: Sequence[Origin],
    target: Target,
    mutations: int,
) -> list[WireMessage]:
    """Return the good events once, and mutations of the others, shuffled."""
    wires = [WireMessage(each.body(), target.key) for each in good]
    wires += [mutated(rng, rng.choice(others), target) for _ in range(mutations)]
    rng.shuffle(wires)
    return wires


async def publish(vhost: Vhost, exchange: str, wires: Sequence[WireMessage]) -> None:
    """Publish as the administrator, who may publish anything; each message is confirmed."""
    async with vhost.channel() as channel:
        underlay = await channel.get_underlay_channel()

        async def send(wire: WireMessage) -> None:
            answer = await underlay.basic_publish(
                wire.body,
                exchange=exchange,
                routing_key=wire.key,
                properties=RawProperties(dict(wire.properties)),  # type: ignore[arg-type] # by shape
            )
            assert isinstance(answer, aiormq.spec.Basic.Ack)

        for begin in range(0, len(wires), AT_ONCE):
            await asyncio.gather(*map(send, wires[begin : begin + AT_ONCE]))


async def settled(vhost: Vhost, queue: str, *, within: float) -> None:
    """Wait until a queue and the retry tiers hold nothing, ready or unacknowledged."""
    names = [queue, *(tier.name for tier in TIERS)]
    quiet = 0

    async def left() -> int:
        nonlocal quiet
        found = await vhost.ask("GET", "queues/{vhost}")
        total = sum(each.get("messages", 0) for each in found if each["name"] in names)
        ready = sum([await vhost.depth(name) for name in names])
        quiet = 0 if total or ready else quiet + 1
        return total + ready if not quiet else -quiet

    # The management API's numbers are up to 5 seconds old: zero must last longer.
    await eventually(left, lambda number: number <= -8, within=within, every=1.0)


async def letters(vhost: Vhost, queue: str) -> list[Letter]:
    """Consume and return all messages of a queue."""
    tolerate_invalid_properties()  # those that the broker dead-letters keep theirs
    depth = await vhost.depth(queue)
    found: list[Letter] = []
    done = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        found.append(Letter(message.body, _reason(message)))
        await message.ack()
        if len(found) == depth:
            done.set()

    if depth:
        async with vhost.channel() as channel:
            await channel.set_qos(AT_ONCE)
            declared = await channel.get_queue(queue)
            await declared.consume(take)
            async with asyncio.timeout(120):
                await done.wait()
    return found


def _reason(message: AbstractIncomingMessage) -> str:
    reason = message.headers.get("nexus-reason")
    if reason is not None:
        return str(reason)
    match message.headers.get("x-death"):
        case [{"reason": reason}, *_]:
            return str(reason)
    return "none"


@dataclass(frozen=True)
class Ends:
    """The queues in which the messages of a run ended."""

    published: list[WireMessage]
    dead: list[Letter]
    unroutable: list[Letter]

    def processed(self) -> Counter[bytes]:
        """Return the bodies that were processed, as often as they were published.

        Raises:
            AssertionError: a queue holds a body that was not published.
        """
        rest = Counter(wire.body for wire in self.published)
        rest.subtract(letter.body for letter in (*self.dead, *self.unroutable))
        unknown = [body for body, number in rest.items() if number < 0]
        assert not unknown, f"not as published: {unknown[:3]}"
        return +rest

    def reasons(self) -> Counter[str]:
        """Count the dead letters by reason."""
        return Counter(letter.reason for letter in self.dead)


async def process_all(
    platform: Platform, service: str, exchange: str, queue: str, wires: list[WireMessage]
) -> Ends:
    """Publish messages to a running service, wait for the end of all, and return their ends."""
    pid = platform.services[service].pid
    await publish(platform.vhost, exchange, wires)
    await settled(platform.vhost, queue, within=300)
    await assert_undisturbed(platform, service, pid, queue)
    dead = await letters(platform.vhost, dead_letter_queue(queue))
    return Ends(wires, dead, await letters(platform.vhost, UNROUTABLE))


def contract_reason(body: bytes, accepted: Sequence[type[EventData]]) -> str | None:
    """Return the reason for which the contract refuses a body, if it does."""
    try:
        read_event(body, accepted)
    except ContractError as error:
        return str(error.reason)
    return None


def assert_reasons_fit(
    ends: Ends, accepted: Sequence[type[EventData]], others: Sequence[str]
) -> None:
    """Fail unless each dead letter has the reason that its body gives.

    ``others`` are the possible reasons of messages that keep the contract.
    """
    for letter in ends.dead:
        expected = contract_reason(letter.body, accepted)
        if letter.reason != "expired":
            fits = letter.reason == expected if expected else letter.reason in others
            assert fits, (letter.reason, expected, letter.body[:300])


async def assert_undisturbed(platform: Platform, service: str, pid: int | None, queue: str) -> None:
    """Fail if the service was restarted, a loop failed, or a message was delivered twice."""
    assert platform.services[service].alive
    assert platform.services[service].pid == pid
    log = platform.log(service)
    for sign in ("loop_failed", "not_consuming", "ack_lost", "consumption_paused", "library_log"):
        lines = [line for line in log.splitlines() if f'"{sign}"' in line]
        assert not lines, lines[:3]
    stats = await platform.vhost.ask("GET", "queues/{vhost}/" + queue)
    assert stats["message_stats"].get("redeliver", 0) == 0
