"""Free TCP ports of the loopback interface."""

import atexit
import random
import socket
import time
from collections import deque

from local_stack.errors import LocalStackError

LOOPBACK = "127.0.0.1"

# Above the well-known ports, below Linux's ephemeral range (32768 and up): a client that redials a
# dead server's ephemeral port can connect to itself and so keep the server from coming back.
_CHOICES = range(20000, 32768)
_ATTEMPTS = 200
_CONNECT_SECONDS = 1.0


class NoFreePortError(LocalStackError):
    """Every port tried was taken."""


class PortTakenError(LocalStackError):
    """Another program listens on a port that a server needs."""


# How long a chosen port is held; by then its server listens on it, also in a whole stack.
_HELD_SECONDS = 300.0

# Until when each chosen port is held, and the socket that keeps other choices from it.
_held: deque[tuple[float, socket.socket]] = deque()

# Wanted ports that this process has chosen, and the UDP sockets of the same numbers: of TCP sockets
# with SO_REUSEADDR several may be bound to a port, so that two processes would both choose it.
_claims: dict[int, socket.socket] = {}


@atexit.register
def _close_held() -> None:
    for each in (*(listener for _, listener in _held), *_claims.values()):
        each.close()


def free_ports(*wanted: int | None) -> list[int]:
    """Choose one free port for each entry, all different.

    A port is chosen before its server starts, and other processes choose theirs at the same time.
    So it stays bound here for some minutes, without listening. A server that sets ``SO_REUSEADDR``
    can listen on it nevertheless; another choice does not take it. A wanted port is its process's
    until that ends.

    Args:
        wanted: A port to take where it is free, or ``None`` for any.

    Returns:
        The ports in the order of ``wanted``; each is below 32768 unless it was wanted.

    Raises:
        NoFreePortError: If no free port was found.
    """
    now = time.monotonic()
    while _held and _held[0][0] < now:
        _held.popleft()[1].close()
    chosen = [_hold(port) for port in wanted]
    _held.extend((now + _HELD_SECONDS, listener) for listener in chosen)
    return [listener.getsockname()[1] for listener in chosen]


def listens(port: int) -> bool:
    """Return whether a program listens on ``port``."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        return client.connect_ex((LOOPBACK, port)) == 0


def _hold(wanted: int | None) -> socket.socket:
    # Only a wanted port is taken although connections of it are in TIME_WAIT.
    if wanted is not None and _claim(wanted):
        listener = _bound(wanted, reuse=True)
        if listener is not None:
            return listener
    for port in random.sample(_CHOICES, _ATTEMPTS):
        if (listener := _bound(port, reuse=False)) is not None:
            return listener
    raise NoFreePortError(f"{_ATTEMPTS} ports from {_CHOICES.start} up were tried, none is free")


def _claim(port: int) -> bool:
    """Claim a wanted port until the end of this process; return whether no other has claimed it."""
    if port not in _claims:
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((LOOPBACK, port))
        except OSError:
            claim.close()
            return False
        _claims[port] = claim
    return True


def _bound(port: int, *, reuse: bool) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        listener.bind((LOOPBACK, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    except OSError:
        listener.close()
        return None
    return listener
