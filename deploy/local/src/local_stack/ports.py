"""Which TCP ports of the loopback interface the parts listen on."""

import random
import socket
from contextlib import ExitStack

from local_stack.errors import LocalStackError

LOOPBACK = "127.0.0.1"

# Above the well-known ports, below Linux's ephemeral range (32768 and up): a client that redials a
# dead server's ephemeral port can connect to itself and so keep the server from coming back.
_CHOICES = range(20000, 32768)
_ATTEMPTS = 200


class NoFreePortError(LocalStackError):
    """Every port tried was taken."""


def free_ports(*wanted: int | None) -> list[int]:
    """Choose one free port for each entry, all different.

    Args:
        wanted: A port to take where it is free, or ``None`` for any.

    Returns:
        The ports in the order of ``wanted``; each is below 32768 unless it was wanted.

    Raises:
        NoFreePortError: If no free port was found.
    """
    with ExitStack() as held:
        return [_hold(held, port) for port in wanted]


def _hold(held: ExitStack, wanted: int | None) -> int:
    candidates = [] if wanted is None else [wanted]
    candidates += random.sample(_CHOICES, _ATTEMPTS)
    for port in candidates:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port))
        except OSError:
            listener.close()
            continue
        held.enter_context(listener)
        return port
    raise NoFreePortError(f"{_ATTEMPTS} ports from {_CHOICES.start} up were tried, none is free")
