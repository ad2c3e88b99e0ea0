"""Resolves host names in threads of its own instead of asyncio's thread pool.

A resolver that hangs blocks its thread for 30 seconds or longer. A few such look-ups would occupy
the whole pool: no other look-up would run, and the process could not end before them. Each look-up
therefore has a daemon thread, and a host has at most one at a time.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final

from nexus_messaging.addresses import Host

AddressInfo = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]
"""As ``socket.getaddrinfo`` returns it."""

_lookups: Final[dict[Host, Future[AddressInfo]]] = {}


async def look_up(host: Host, seconds: float) -> AddressInfo:
    """Return the addresses of ``host`` for TCP, in the resolver's order.

    Raises:
        TimeoutError: no answer within ``seconds``; the next call waits for the same look-up.
        OSError: there is no such name, or no resolver.
    """
    lookup = _lookups.get(host)
    if lookup is None or lookup.done():
        lookup = _lookups[host] = Future()
        lookup.set_running_or_notify_cancel()  # no caller can cancel it for the others
        Thread(target=_resolve, args=(host, lookup), name=f"look up {host}", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(lookup)


def _resolve(host: Host, lookup: Future[AddressInfo]) -> None:
    try:
        lookup.set_result(socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - raised in the callers
        lookup.set_exception(error)
