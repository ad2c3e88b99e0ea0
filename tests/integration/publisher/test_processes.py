"""What a host's processes do to its events: they end, fork, are killed, and share a spool."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from integration.publisher.processes import host_process, run_host
from local_stack.ports import LOOPBACK, free_ports
from support.events_api_stand_in import EventsApi

AWAY = {
    "http": f"http://{LOOPBACK}:{{port}}",
    "amqp": f"amqp://publisher:secret@{LOOPBACK}:{{port}}/metering",
}
LINES = {
    "http": "tool.executed.v1 is not delivered: the API is not reachable: ClientConnectorError\n",
    "amqp": "tool.executed.v1 is not delivered: the broker is not reachable: AMQPConnectionError\n",
}
"""What a host with such a transport logs, and the whole of its standard error."""


async def test_the_end_of_the_interpreter_sends_what_is_in_memory(api: EventsApi) -> None:
    """A script records and ends; nothing is printed, and the process ends by itself.

    The API has a host name: no thread of a pool can look it up any more.
    """
    host = await run_host("leave", http=api.url.replace(LOOPBACK, "localhost"))

    assert len(host.promised) == 20
    assert set(api.ids) == set(host.promised)


async def test_the_end_of_an_event_loop_loses_nothing(api: EventsApi) -> None:
    """The publisher does not depend on the host's loop."""
    host = await run_host("in_a_loop", http=api.url)

    assert api.ids == list(host.promised)


@pytest.mark.parametrize("transport", ["http", "amqp"])
async def test_the_end_waits_for_nobody_if_everything_is_stored(
    transport: str, api: EventsApi, tmp_path: Path
) -> None:
    """The other side is away: the process ends long before its deadline, and says one line.

    The next process sends its events.
    """
    spool = str(tmp_path / "spool")
    [port] = free_ports(None)
    url = AWAY[transport].format(port=port)
    began = asyncio.get_running_loop().time()
    host = await run_host(
        "leave", errors=LINES[transport], spool=spool, drain_seconds=60, **{transport: url}
    )
    assert asyncio.get_running_loop().time() - began < 30

    await run_host("flush", http=api.url, spool=spool)

    assert len(host.stored()) == 20
    assert set(api.ids) == host.stored()


async def test_sigterm_drains_and_ends_as_it_would_without_a_publisher(api: EventsApi) -> None:
    """The host has no handler: its events go out, and its parent sees that SIGTERM ended it."""
    async with host_process("wait_for_sigterm", http=api.url) as host:
        await host.read_until("ready")
        host.process.terminate()

        assert await host.end() == -signal.SIGTERM
    assert api.ids == list(host.promised)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_keyboard_interrupt_in_a_call_passes_and_harms_no_other(
    durable: bool,  # noqa: FBT001 - a parameter of the test
    api: EventsApi,
    tmp_path: Path,
) -> None:
    """At any moment, the first call included: the host goes on, and so does its publisher."""
    spool = {"spool": str(tmp_path / "spool")} if durable else {}
    host = await run_host("interrupted", http=api.url, **spool)

    assert host.said == [f"last {'Stored' if durable else 'InMemory'}"] * 20
    assert set(host.promised) <= set(api.ids)


@pytest.mark.parametrize("early", [True, False])
async def test_sigterm_is_left_to_a_handler_of_the_host(
    early: bool,  # noqa: FBT001 - a parameter of the test
    api: EventsApi,
) -> None:
    """From before the publisher or after: it decides how the process ends, and its exit drains."""
    part = "wait_for_sigterm" if early else "wait_with_a_handler"
    async with host_process(part, http=api.url, handler=early) as host:
        await host.read_until("ready")
        host.process.terminate()

        assert await host.end() == 7
    assert api.ids == list(host.promised)


@pytest.mark.parametrize("durable", [True, False])
async def test_children_of_a_fork_send_their_own_events(
    durable: bool,  # noqa: FBT001 - a parameter of the test
    api: EventsApi,
    tmp_path: Path,
) -> None:
    """Each event arrives once, of the parent and of children that fork while it delivers."""
    spool = {"spool": str(tmp_path / "spool")} if durable else {}
    host = await run_host("fork", http=api.url, **spool)

    assert host.said == ["child 0", "child 0", "child 0", "flushed"]
    assert len(host.promised) == 403
    assert "dropped" not in host.promised.values()
    assert Counter(api.ids) == Counter(host.promised.keys())
    assert (len(host.stored()) > 300) == durable  # children use the spool, too


async def test_processes_share_a_spool_and_send_each_event_once(
    api: EventsApi, tmp_path: Path
) -> None:
    """Four processes write at once; one delivers, and another goes on when that one is killed."""
    spool = str(tmp_path / "spool")
    hosts = [host_process("steady", http=api.url, spool=spool) for _ in range(4)]
    async with hosts[0] as first, hosts[1] as second, hosts[2] as third, hosts[3] as fourth:
        running = [first, second, third, fourth]
        for host in running:
            await host.read_until("stored")
        readers = [asyncio.create_task(host.end()) for host in running]
        for host in running:
            await asyncio.sleep(0.4)
            host.process.kill()
        assert await asyncio.gather(*readers) == [-signal.SIGKILL] * 4
    await run_host("flush", http=api.url, spool=spool)

    stored = set().union(*(host.stored() for host in running))
    assert len(stored) > 100
    assert stored <= set(api.ids)
    # Of each killed process at most the batches in flight, one each, may come twice.
    repeated = sum(Counter(api.ids).values()) - len(set(api.ids))
    assert repeated <= 4 * max(map(len, api.requests))


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
async def test_a_killed_host_loses_nothing_that_was_stored(
    kills: int, api: EventsApi, tmp_path: Path
) -> None:
    """Killed at random moments; every stored event arrives, always with the same bytes."""
    spool, chance = str(tmp_path / "spool"), random.Random(kills)  # noqa: S311 - moments of kills
    stored: set[str] = set()
    for _ in range(kills):
        async with host_process("steady", http=api.url, spool=spool) as host:
            await host.read_until("stored")
            reading = asyncio.create_task(host.end())
            await asyncio.sleep(chance.random() / 2)
            host.process.kill()
            assert await reading == -signal.SIGKILL
        stored |= host.stored()

    await run_host("flush", http=api.url, spool=spool)

    assert len(stored) >= kills
    assert stored <= set(api.ids)
    bodies = {event["id"]: event for event in api.accepted}
    assert all(bodies[event["id"]] == event for event in api.accepted)
