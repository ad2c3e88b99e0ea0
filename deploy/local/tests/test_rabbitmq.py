"""A RabbitMQ node: started, killed, restarted, stopped."""

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest

from local_stack.broker_programs import BrokerUnavailableError
from local_stack.directory_lock import DirectoryInUseError
from local_stack.identities import ProcessIdentity, descendants
from local_stack.ports import LOOPBACK, PortTakenError, free_ports
from local_stack.rabbitmq import RabbitNode
from local_stack.rabbitmq_settings import PLUGINS, RabbitPorts


async def test_a_confirmed_message_survives_a_crash_and_a_restart(node: RabbitNode) -> None:
    """A persistent message in a quorum queue is there after a kill, on the same port."""
    url = node.amqp_url(node.admin.user, node.admin.password)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"body", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")

    node.kill()
    node.restart()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        kept = await channel.get_queue("kept")
        async with asyncio.timeout(30), kept.iterator() as messages:
            received = await anext(messages)
            await received.ack()
    assert received.body == b"body"


def test_the_plugins_that_operators_need_are_enabled(node: RabbitNode) -> None:
    """The management UI, its *Move messages* (shovels) and the metrics."""
    enabled = node.ctl("eval", "rabbit_plugins:active().")

    assert all(plugin in enabled for plugin in PLUGINS)
    with socket.create_connection((LOOPBACK, node.ports.prometheus), timeout=5):
        pass


def test_every_listener_is_on_the_loopback_interface(node: RabbitNode) -> None:
    """No port of the node answers on any other address of the machine."""
    ports = {node.ports.amqp, node.ports.management, node.ports.prometheus}
    ports |= {node.ports.distribution, node.ports.epmd}

    listening = {(address, port) for address, port in _ipv4_listeners() if port in ports}

    assert listening == {(LOOPBACK, port) for port in ports}


def test_a_second_node_in_the_same_folder_is_refused(node: RabbitNode) -> None:
    """Two nodes on the same data would destroy it; the first keeps running."""
    with pytest.raises(DirectoryInUseError, match=f"in use by process {os.getpid()}"):
        RabbitNode.start(node.directory)

    assert node.version


def test_nothing_is_left_running_after_a_stop(node: RabbitNode) -> None:
    """The node, its helpers and its port mapper are gone when ``stop`` returns."""
    running = [ProcessIdentity.of(pid) for pid in node.pids.values()]
    running += [child for pid in node.pids.values() for child in descendants(pid)]
    assert len(running) > len(node.pids)

    node.stop()

    assert not any(process and process.alive for process in running)


def test_a_folder_that_a_shell_would_misread_is_refused(tmp_path: Path) -> None:
    """RabbitMQ's shell would wait for the closing quote."""
    with pytest.raises(BrokerUnavailableError, match="it hands its folder to a shell"):
        RabbitNode.start(tmp_path / "it's")


@pytest.mark.long
def test_a_port_that_another_program_took_is_named(tmp_path: Path) -> None:
    """Its port may have been free when it was chosen."""
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        ports = replace(RabbitPorts.choose(), amqp=taken)

        with pytest.raises(PortTakenError, match=f"another program listens on port {taken}$"):
            RabbitNode.start(tmp_path, ports)


def test_standard_ports_are_used_only_where_free() -> None:
    """A machine's own broker keeps its port; ours uses another."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if taken.connect_ex((LOOPBACK, 15692)) != 0:
            taken.bind((LOOPBACK, 15692))
            taken.listen()

        assert RabbitPorts.choose(standard=True).prometheus != 15692


def test_chosen_ports_differ_and_are_below_the_ephemeral_range() -> None:
    """A reconnecting client can never occupy the port of its dead server."""
    ports = free_ports(*[None] * 20)

    assert len(set(ports)) == 20
    assert all(20000 <= port < 32768 for port in ports)


def _ipv4_listeners() -> set[tuple[str, int]]:
    """Read the listening sockets from ``/proc/net/tcp`` (state ``0A``)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    rows = [line.split() for line in lines[1:]]
    listeners = set()
    for row in rows:
        address, port = row[1].split(":")
        if row[3] == "0A":
            octets = int(address, 16).to_bytes(4, "little")
            listeners.add((socket.inet_ntoa(octets), int(port, 16)))
    return listeners
