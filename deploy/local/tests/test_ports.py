"""Ports that are chosen now and used later, on a machine where other processes do the same."""

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from local_stack.ports import LOOPBACK, free_ports


def test_a_chosen_port_is_not_chosen_again() -> None:
    """A process that looks for a free port finds that it is in use."""
    [port] = free_ports(None)

    with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))


def test_a_server_listens_on_the_port_chosen_for_it() -> None:
    """Servers set `SO_REUSEADDR`; clients reach them."""
    [port] = free_ports(None)

    with (
        socket.create_server((LOOPBACK, port)) as server,
        socket.create_connection((LOOPBACK, port)) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_a_process_that_chose_a_port_ends_without_a_warning() -> None:
    """What holds the port until then is closed at the end."""
    code = "from local_stack.ports import free_ports; free_ports(None)"
    command = [sys.executable, "-W", "error", "-c", code]

    ended = subprocess.run(command, capture_output=True, text=True, check=True)

    assert ended.stderr == ""


def test_a_wanted_port_is_used_again_after_its_server_ended() -> None:
    """Connections in TIME_WAIT do not prevent it."""
    [port] = free_ports(None)
    with socket.create_server((LOOPBACK, port)) as server:
        client = socket.create_connection((LOOPBACK, port))
        server.accept()[0].close()
        client.close()

    assert free_ports(port) == [port]


def test_a_wanted_port_that_another_process_chose_is_replaced() -> None:
    """Before its server listens, too: two stacks may want the standard ports at once."""
    [port] = free_ports(None)
    code = f"from local_stack.ports import free_ports; print(*free_ports({port}), flush=True)"
    command = [sys.executable, "-c", f"{code}; input()"]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert int(other.stdout.readline()) == port
        [instead] = free_ports(port)
        other.communicate(b"\n")

    assert instead != port


def test_a_wanted_port_that_is_in_use_is_replaced() -> None:
    """Whether another process listens on this address or on all."""
    with socket.create_server(("", 0)) as other:
        taken = other.getsockname()[1]
        [port] = free_ports(taken)

    assert port != taken
