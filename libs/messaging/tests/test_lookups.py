"""Hosts are looked up beside everything else that a process does."""

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from nexus_messaging.addresses import Host
from nexus_messaging.lookups import look_up

NAME = "hung.example"
PORTS = itertools.count(1)
"""A host of its own for each test: what hangs for one may still hang for the next."""


class Resolver:
    """Answers at once, but for one name: that one's answer waits."""

    def __init__(self) -> None:
        self.hung = Host(NAME, next(PORTS))
        self.going = Event()
        self.asked: list[str] = []

    def look_up(self, name: str, port: int, **_options: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``."""
        self.asked.append(name)
        if name == NAME:
            self.going.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Return a resolver that hangs at one name until the test is over."""
    hanging = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", hanging.look_up)
    yield hanging
    hanging.going.set()


async def test_hung_lookup_holds_up_no_other(resolver: Resolver) -> None:
    """However often it is begun again: it is one look-up, and others have threads of their own."""
    for _ in range(50):
        with pytest.raises(TimeoutError):
            await look_up(resolver.hung, 0.001)
    [(*_, address)] = await look_up(Host("fine.example", 5432), 5)

    assert address == ("127.0.0.1", 5432)
    assert resolver.asked == [NAME, "fine.example"]


async def test_lookup_that_ends_late_answers_who_waits_then(resolver: Resolver) -> None:
    """And whoever comes after that asks anew."""
    with pytest.raises(TimeoutError):
        await look_up(resolver.hung, 0.001)
    waiting = asyncio.create_task(look_up(resolver.hung, 5))
    await asyncio.sleep(0)
    resolver.going.set()

    assert len(await waiting) == 1
    await look_up(resolver.hung, 5)
    assert resolver.asked == [NAME] * 2


def test_process_ends_while_a_lookup_hangs(resolver: Resolver) -> None:
    """Ending the loop waits for asyncio's own threads, and so would never end."""

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await look_up(resolver.hung, 0.001)

    began = time.monotonic()
    asyncio.run(give_up())

    assert time.monotonic() - began < 5
    assert not resolver.going.is_set()
