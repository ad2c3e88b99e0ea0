"""Ports that are chosen now and listened to later, on a machine where others do the same."""

import socket
from contextlib import closing

import pytest

from local_stack.ports import LOOPBACK, free_ports


def test_a_chosen_port_is_left_alone_by_other_choices() -> None:
    """Whoever looks for a free port, in any process, finds that it is in use."""
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


def test_a_wanted_port_is_taken_again_after_its_server_ended() -> None:
    """The connections that it closed last, in TIME_WAIT, keep it from nobody."""
    [port] = free_ports(None)
    with socket.create_server((LOOPBACK, port)) as server:
        client = socket.create_connection((LOOPBACK, port))
        server.accept()[0].close()
        client.close()

    assert free_ports(port) == [port]


def test_a_wanted_port_that_is_listened_to_is_replaced() -> None:
    """By whomever, on this address or on all."""
    with socket.create_server(("", 0)) as other:
        taken = other.getsockname()[1]
        [port] = free_ports(taken)

    assert port != taken
