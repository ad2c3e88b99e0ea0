"""Host look-ups run in threads of their own."""

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
        self.names: list[str] = []

    def look_up(self, name: str, port: int, **_options: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``."""
        self.names.append(name)
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


async def test_hung_lookup_delays_no_other(resolver: Resolver) -> None:
    """Repeated calls for the host share one look-up; other hosts have threads of their own."""
    for _ in range(50):
        with pytest.raises(TimeoutError):
            await look_up(resolver.hung, 0.001)
    [(*_, address)] = await look_up(Host("fine.example", 5432), 5)

    assert address == ("127.0.0.1", 5432)
    assert resolver.names == [NAME, "fine.example"]


async def test_late_lookup_answers_the_current_caller(resolver: Resolver) -> None:
    """A later call starts a new look-up."""
    with pytest.raises(TimeoutError):
        await look_up(resolver.hung, 0.001)
    waiting = asyncio.create_task(look_up(resolver.hung, 5))
    await asyncio.sleep(0)
    resolver.going.set()

    assert len(await waiting) == 1
    await look_up(resolver.hung, 5)
    assert resolver.names == [NAME] * 2


def test_process_ends_while_a_lookup_hangs(resolver: Resolver) -> None:
    """Ending the loop waits for asyncio's own threads, and so would never end."""

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await look_up(resolver.hung, 0.001)

    began = time.monotonic()
    asyncio.run(give_up())

    assert time.monotonic() - began < 5
    assert not resolver.going.is_set()
