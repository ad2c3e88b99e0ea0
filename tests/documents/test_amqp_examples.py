"""The examples of docs/examples run as they stand, also while the broker misbehaves."""

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from local_stack.urls import Login
from metering_chaos.proxies import Proxy, open_proxies
from nexus_contracts import CONTENT_TYPE, Event, EventData, ToolExecuted, UserCreated, read_event
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from support.commands import Shown
from support.node import NODE, npm_ci
from support.vhost import Vhost

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PINS = Path(__file__).parent / "amqplib"
CLIENTS = ("publish_aio_pika.py", "publish_pika.py", "publish_amqplib.mjs")

BASIC_ACK = b"\x00\x3c\x00\x50"
"""How AMQP writes the class and the method of a confirm."""

CONTRACTS: Sequence[type[EventData]] = (UserCreated, ToolExecuted)

LINE = re.compile(r"(user\.created\.v1|tool\.executed\.v1) ([0-9a-f-]{36}): (.*)")
AGAIN = re.compile(rb"again in [\d.]+ m?s\n")


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where amqplib is installed, as npm has it."""
    folder = tmp_path_factory.mktemp("amqplib")
    shutil.copytree(PINS, folder, dirs_exist_ok=True)
    npm_ci(folder)
    return folder


@dataclass(frozen=True)
class Client:
    """An example with a proxy between it and the broker."""

    runtime: str | Path
    example: Path
    vhost: Vhost
    proxy: Proxy
    user: UUID

    async def start(
        self, limit: int = 20, password: str | None = None, host: Path | None = None
    ) -> Process:
        """Start the example, or a host of it; it gives up an event after ``limit`` seconds."""
        login = Login("publisher", password or self.vhost.password)
        settings = {
            "AMQP_URL": self.proxy.address.amqp_url(login, self.vhost.name),
            "USER_ID": str(self.user),
            "LIMIT_SECONDS": str(limit),
        }
        return await asyncio.create_subprocess_exec(
            self.runtime,
            *([host] if host else []),
            self.example,
            env=os.environ | settings,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def end(self, process: Process) -> Shown:
        """Wait for the example's own end; no output has a password, a crash or a warning."""
        async with asyncio.timeout(150):
            output, errors = await process.communicate()
        assert process.returncode is not None
        shown = Shown(process.returncode, output.decode(), errors.decode())
        assert self.vhost.password not in shown.output
        assert "Traceback" not in shown.errors, shown.errors
        assert "at file:" not in shown.errors, shown.errors
        assert "Warning" not in shown.errors, shown.errors
        return shown

    async def run(self, limit: int = 20, password: str | None = None) -> Shown:
        """Run the example to its end."""
        return await self.end(await self.start(limit, password))


@pytest.fixture(params=CLIENTS)
async def client(request: pytest.FixtureRequest, vhost: Vhost) -> AsyncIterator[Client]:
    """Return each example in turn."""
    example = EXAMPLES / request.param
    runtime: str | Path = sys.executable
    if example.suffix == ".mjs":
        installed = request.getfixturevalue("node_modules")
        runtime, example = NODE, Path(shutil.copy(example, installed))
    async with open_proxies(["broker"]) as proxies:
        proxies["broker"].upstream = vhost.broker.amqp
        yield Client(runtime, example, vhost, proxies["broker"], uuid4())


def outcomes(shown: Shown) -> list[tuple[str, str, str]]:
    """Read type, id and outcome from the lines of an example."""
    return [(line[1], line[2], line[3]) for line in LINE.finditer(shown.raw)]


async def published(client: Client, queue: str) -> list[Event[EventData]]:
    """Read all messages of a queue by their contracts, which their properties agree with."""
    events = []
    for got in await client.vhost.peek(queue):
        event = read_event(got.body, CONTRACTS)
        assert (got.message_id, got.type) == (str(event.id), event.type)
        assert (got.content_type, got.delivery_mode) == (CONTENT_TYPE, 2)
        events.append(event)
    return events


@pytest.mark.parametrize("fault", ["cut_at", pytest.param("silent_at", marks=pytest.mark.long)])
async def test_event_whose_confirm_was_lost_is_published_again(client: Client, fault: str) -> None:
    """The connection breaks or falls silent at the first confirm: the same bytes come twice."""
    setattr(client.proxy, fault, BASIC_ACK)

    shown = await client.run()

    assert shown.code == 0
    (_, user, confirmed), (_, run, _) = outcomes(shown)
    assert confirmed == "confirmed"
    assert AGAIN.search(shown.errors.encode())
    first, second = await published(client, USER_CREATED_QUEUE)
    assert first == second
    assert isinstance(first.data, UserCreated)
    assert (str(first.id), first.data.user_id) == (user, client.user)
    [event] = await published(client, TOOL_EXECUTED_QUEUE)
    assert isinstance(event.data, ToolExecuted)
    assert (str(event.id), event.data.user_id) == (run, client.user)


async def test_forbidden_type_is_reported_and_not_repeated(client: Client) -> None:
    """This publisher may publish users alone."""
    path = "topic-permissions/{vhost}/publisher"
    rights = {"exchange": EVENTS, "write": r"^user\.created", "read": "^$"}
    await client.vhost.ask("PUT", path, rights)

    shown = await client.run()

    assert shown.code == 1
    (_, _, user), (_, _, run) = outcomes(shown)
    assert user == "confirmed"
    assert run.startswith("refused: ")
    assert "access to topic 'tool.executed.v1'" in run
    assert "again in" not in shown.errors
    assert await client.vhost.depth(TOOL_EXECUTED_QUEUE) == 0


@pytest.mark.long
async def test_wrong_password_is_reported_and_not_repeated(client: Client) -> None:
    """Nor is it shown."""
    shown = await client.run(password="wrong-password")

    assert shown.code == 1
    assert [outcome.partition(":")[0] for _, _, outcome in outcomes(shown)] == ["refused"] * 2
    assert "ACCESS_REFUSED" in shown.raw
    assert "wrong-password" not in shown.output


@pytest.mark.long
async def test_unknown_vhost_is_reported_and_not_repeated(client: Client) -> None:
    """Its AMQP_URL names another vhost."""
    path = "permissions/{vhost}/publisher"
    await client.vhost.ask("DELETE", path)

    shown = await client.run()

    assert shown.code == 1
    assert [outcome.partition(":")[0] for _, _, outcome in outcomes(shown)] == ["refused"] * 2


@pytest.mark.long
async def test_event_that_no_queue_takes_is_not_confirmed(client: Client) -> None:
    """The broker returns and acknowledges it: an operator has deleted a queue and `unroutable`."""
    for path in ("exchanges/{vhost}/unroutable", f"queues/{{vhost}}/{USER_CREATED_QUEUE}"):
        await client.vhost.ask("DELETE", path)

    shown = await client.run(limit=1)

    assert shown.code == 1
    (_, _, user), (_, _, run) = outcomes(shown)
    assert user.startswith("not confirmed in 1 s: ")
    assert run == "confirmed"


@pytest.mark.long
async def test_broker_that_is_away_at_the_start_is_waited_for(client: Client) -> None:
    """The example says so, and publishes once the broker is there."""
    await client.proxy.close()
    process = await client.start()
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while not AGAIN.search(await process.stderr.readline()):
            pass
    await client.proxy.open()

    shown = await client.end(process)

    assert shown.code == 0
    assert [outcome for _, _, outcome in outcomes(shown)] == ["confirmed"] * 2
    assert len(await published(client, TOOL_EXECUTED_QUEUE)) == 1


@pytest.mark.long
@pytest.mark.parametrize("away", ["refuses", "does not answer", "answers no handshake"])
async def test_broker_that_stays_away_is_given_up(client: Client, away: str) -> None:
    """Within the limit that the line names, and with the ids to keep."""
    match away:
        case "refuses":
            await client.proxy.close()
        case "does not answer":
            client.proxy.accept_without_answer()
        case _:
            await client.proxy.ignore_handshakes()

    shown = await client.run(limit=1)

    assert shown.code == 1
    ends = outcomes(shown)
    assert [kind for kind, _, _ in ends] == ["user.created.v1", "tool.executed.v1"]
    assert all(outcome.startswith("not confirmed in 1 s: ") for _, _, outcome in ends)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_host_outlives_a_killed_broker_and_loses_no_run(client: Client) -> None:
    """The broker is killed between runs that a host publishes; one of them can't be written."""
    broker = client.vhost.broker
    host = Path(__file__).with_name(f"amqp_host{client.example.suffix}")
    process = await client.start(limit=120, host=host)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        early = [await process.stdout.readline() for _ in range(5)]
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.restart)

    shown = await client.end(process)

    assert shown.code == 0
    assert "again in" in shown.errors
    lines = [*(line.decode() for line in early), *shown.raw.splitlines()]
    ends = dict(line.strip().split(" ", 1) for line in lines)
    runs = {run for run, outcome in ends.items() if outcome == "confirmed"}
    [unwritable] = set(ends) - runs
    assert ends[unwritable].startswith("refused: ")
    assert len(runs) == 60
    events = await published(client, TOOL_EXECUTED_QUEUE)
    assert {str(event.id) for event in events} == runs
    assert len({event.id: event for event in events}) == len({event.body() for event in events})
