"""Looking up the addresses of a host without the few threads that all of a process shares.

A resolver that hangs keeps its thread for half a minute and more. Of asyncio's own threads a few
such look-ups take all: nothing else is looked up then, not even an address, and the process ends
only after them. So each has a thread that nobody waits for, and each host has one at a time.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final

from nexus_messaging.addresses import Host

Found = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]
"""As ``socket.getaddrinfo`` returns it."""

_latest: Final[dict[Host, Future[Found]]] = {}


async def look_up(host: Host, seconds: float) -> Found:
    """Return the addresses of ``host`` for TCP, in the resolver's order.

    Raises:
        TimeoutError: no answer within ``seconds``; whoever asks next waits for the same one.
        OSError: there is no such name, or no resolver.
    """
    asked = _latest.get(host)
    if asked is None or asked.done():
        asked = _latest[host] = Future()
        asked.set_running_or_notify_cancel()  # nobody who stops waiting cancels it for others
        Thread(target=_ask, args=(host, asked), name=f"look up {host}", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(asked)


def _ask(host: Host, asked: Future[Found]) -> None:
    try:
        asked.set_result(socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - it is for those who wait to judge it
        asked.set_exception(error)
