"""nexus-outbox as a process: killed, restarted, without its database; and its commands."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from integration.outbox.conftest import Host, outbox_process, published
from local_stack.server_process import ServerProcess
from metering_chaos.environment import in_thread
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from nexus_outbox.installation import VERSION, sql_file
from support.commands import in_a_pipe
from support.memory import MAX_WHEN_IDLE, resident_mib
from support.metrics import sample
from support.vhost import Vhost
from support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(host: Host, vhost: Vhost, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a process and waits until it is ready."""
    with ExitStack() as running:

        def started(number: int = 1, **settings: str) -> ServerProcess:
            process = outbox_process(host, vhost, tmp_path, number, **settings)
            running.callback(process.stop)
            process.launch_and_wait()
            return process

        yield started


async def until_waiting(host: Host, number: int, within: float = 30) -> None:
    """Wait until so many events wait."""
    await eventually(
        lambda: asyncio.to_thread(host.waiting), lambda n: n == number, within=within, every=0.2
    )


async def test_a_notification_wakes_the_loop(host: Host, vhost: Vhost, start: Start) -> None:
    """Long before the next poll; and its output holds no address."""
    process = await in_thread(lambda: start(POLL_SECONDS="60"))

    await in_thread(host.sign_up)

    await until_waiting(host, 0)
    assert len(await published(vhost, USER_CREATED_QUEUE)) == 1
    assert await sample(process.url, "nexus_outbox_events_published_total") == 1
    assert "example.com" not in process.log.read_text(encoding="utf-8")


async def test_polling_finds_rows_without_a_notification(
    host: Host, vhost: Vhost, start: Start
) -> None:
    """A host with very many commits, or with prepared transactions, switches notifications off."""
    host.sql("UPDATE metering.settings SET notify = false")
    await in_thread(lambda: start(POLL_SECONDS="0.5"))

    run = await in_thread(host.run_tool)

    await until_waiting(host, 0)
    assert await published(vhost) == [str(run)]


async def test_killed_processes_lose_nothing(host: Host, vhost: Vhost, start: Start) -> None:
    """Two processes are killed again and again under load; every id arrives."""
    processes = [await in_thread(partial(start, number)) for number in (1, 2)]

    for number in range(4):
        await in_thread(lambda: host.run_tools(300))
        victim = processes[number % 2]
        victim.kill()
        await in_thread(victim.launch_and_wait)

    host.sql("UPDATE metering.outbox SET due_at = now() WHERE sent_at IS NULL")  # ends the leases
    await until_waiting(host, 0, within=60)
    ids = host.sql("SELECT id FROM metering.outbox ORDER BY id").splitlines()
    assert len(ids) == 1200
    assert sorted(set(await published(vhost))) == ids


async def test_sigterm_finishes_the_round(host: Host, vhost: Vhost, start: Start) -> None:
    """The process ends well, and no row stays leased."""
    process = await in_thread(start)
    await in_thread(lambda: host.run_tools(2000))

    process.terminate()

    assert await in_thread(lambda: process.wait_for_exit(25))
    assert process.exit_code == 0
    assert host.sql("SELECT count(*) FROM metering.outbox WHERE due_at > now()") == "0"
    assert len(await published(vhost)) == 2000 - host.waiting()


async def test_a_restarted_database_is_used_again(host: Host, vhost: Vhost, start: Start) -> None:
    """Readiness says so meanwhile; afterwards notifications wake the loop again."""
    process = await in_thread(lambda: start(POLL_SECONDS="60"))
    assert resident_mib(process) < MAX_WHEN_IDLE

    host.server.kill()
    assert await eventually(lambda: status(process, "readyz"), lambda code: code == 503) == 503
    await in_thread(host.server.restart)
    run = await in_thread(host.run_tool)

    await until_waiting(host, 0, within=90)
    assert await eventually(lambda: status(process, "readyz"), lambda code: code == 200) == 200
    assert await status(process, "healthz") == 200
    assert await published(vhost) == [str(run)]


async def status(process: ServerProcess, path: str) -> int:
    """Return the status of a probe."""
    async with aiohttp.ClientSession() as session, session.get(f"{process.url}/{path}") as answer:
        return answer.status


async def test_what_is_not_published_is_measured(host: Host, start: Start) -> None:
    """Each kind has a gauge of its own."""
    host.sql("SELECT metering.tool_executed(NULL, 's', 't', 'hub')", "hub")
    process = await in_thread(start)

    gauge = partial(sample, process.url, 'nexus_outbox_events{state="invalid"}')
    await eventually(gauge, lambda number: number == 1)
    assert await sample(process.url, "nexus_outbox_events_set_aside_total") == 1


async def test_the_commands_install_and_show(bare_host: Host, vhost: Vhost) -> None:
    """From an empty database to a published event, as the README says."""
    loop = {"DATABASE_URL": bare_host.url("outbox_loop"), "AMQP_URL": vhost.url("publisher")}

    ended = await in_a_pipe("nexus_outbox", "check", **loop)
    assert (ended.code, "not installed" in ended.raw) == (1, True)
    printed = await in_a_pipe("nexus_outbox", "print", "install")
    assert printed.raw == sql_file("install")
    owner = bare_host.url("host_owner")
    ended = await in_a_pipe("nexus_outbox", "migrate", DATABASE_URL=owner)
    assert ended.raw == f"nexus-outbox: database at revision {VERSION}\n", ended.errors
    ended = await in_a_pipe("nexus_outbox", "status", **loop)
    assert (ended.code, "admit_loop" in ended.errors) == (1, True)
    bare_host.sql("SELECT metering.admit_loop('outbox_loop'); SELECT metering.admit_caller('hub')")
    ended = await in_a_pipe("nexus_outbox", "check", **loop)
    assert ended.code == 0, ended.raw
    bare_host.run_tool()

    ended = await in_a_pipe("nexus_outbox", "status", **loop)
    assert ended.raw.startswith("waiting: 1, the oldest for ")
    since = ("publish-again", "--since", "2026-01-01T00:00:00Z")
    for more, output in (((), "0 events would be published"), (("--execute",), "0 events are due")):
        ended = await in_a_pipe("nexus_outbox", *since, *more, **loop)
        assert ended.raw.startswith(output), ended.errors
    ended = await in_a_pipe("nexus_outbox", "retry", **loop)
    assert ended.raw.startswith("0 invalid events")


async def test_a_role_without_rights_is_told_what_to_run(bare_host: Host) -> None:
    """The owner's command, run by the loop's role, changes nothing."""
    url = bare_host.url("outbox_loop")

    ended = await in_a_pipe("nexus_outbox", "migrate", DATABASE_URL=url)

    assert ended.code == 1
    assert "permission denied" in ended.errors
    assert TOOL_EXECUTED_QUEUE not in ended.errors
