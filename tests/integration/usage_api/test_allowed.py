"""`allowed` of both packages against `usage-ingest usage-api`, a process on a real database."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from local_stack.catalogue import USAGE_API, base_environment, usage_api_command
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from metering_chaos.environment import in_thread
from nexus_publisher.entitlements import Entitlements
from support.node import NODE, install_publisher
from support.usage_ledger import UsageLedger
from support.waiting import eventually

from .conftest import KEY, KEYS_ENTRY, PLANS

PATIENT: Final = 20.0
"""A budget in seconds that a busy machine keeps."""

SHORT: Final = 0.2

HOST: Final = """
import { createEntitlements } from "@nexus-metering/publisher";
import { createInterface } from "node:readline";

const [url, key] = process.argv.slice(2);
const settings = { url, key, requestTimeoutMs: 20_000 };
const patient = createEntitlements({ ...settings, budgetMs: 20_000 });
const hasty = createEntitlements({ ...settings, budgetMs: 200, staleMs: 0 });
for await (const line of createInterface({ input: process.stdin })) {
  const { user, server, tool, otherwise, budget } = JSON.parse(line);
  const asked = budget > 1 ? patient : hasty;
  const { allowed, why, limit } = await asked.allowed(user, server, tool, { otherwise });
  console.log(JSON.stringify([allowed, why, limit ?? null]));
}
patient.close();
hasty.close();
"""

Decided = tuple[bool, str, str | None]


@dataclass(frozen=True)
class Run:
    """A tool run that a host asks about."""

    user: UUID
    server: str = "weather"
    tool: str = "forecast"
    otherwise: str = "closed"


class PythonHost:
    """A host of the Python package in this process."""

    def __init__(self, url: str) -> None:
        self._patient = Entitlements(url, KEY, budget_seconds=PATIENT)
        self._hasty = Entitlements(url, KEY, budget_seconds=SHORT, stale_seconds=0)

    async def ask(self, run: Run, *, budget: float = PATIENT) -> Decided:
        """Return what is decided about a run."""
        asked = self._patient if budget > 1 else self._hasty
        otherwise: Any = run.otherwise
        decision = await asked.aallowed(run.user, run.server, run.tool, otherwise=otherwise)
        return decision.allowed, decision.why.value, decision.limit

    async def close(self) -> None:
        """End its threads."""
        self._patient.close()
        self._hasty.close()


class TypeScriptHost:
    """A process of Node with the TypeScript package installed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._to, self._from = process, process.stdin, process.stdout

    async def ask(self, run: Run, *, budget: float = PATIENT) -> Decided:
        """Return what is decided about a run."""
        asked = {**vars(run), "user": str(run.user), "budget": budget}
        self._to.write(json.dumps(asked).encode() + b"\n")
        async with asyncio.timeout(60):
            allowed, why, limit = json.loads(await self._from.readline())
        return allowed, why, limit

    async def close(self) -> None:
        """End it by the end of its input."""
        self._to.close()
        async with asyncio.timeout(30):
            assert await self._process.wait() == 0


Host = PythonHost | TypeScriptHost
Serve = Callable[[Path], ServerProcess]


@pytest.fixture
def serve(urls: tuple[str, str], tmp_path: Path) -> Iterator[Serve]:
    """Return a function that makes the process with a file of plans, not running yet."""
    made: list[ServerProcess] = []

    def make(plans: Path) -> ServerProcess:
        [port] = free_ports(None)
        settings = {
            "DATABASE_URL": urls[1],
            "API_KEYS": KEYS_ENTRY.configured,
            "PLANS_FILE": str(plans),
            "HTTP_PORT": str(port),
        }
        server = ServerProcess(
            USAGE_API,
            usage_api_command(),
            url=f"http://{LOOPBACK}:{port}",
            ready_path="/readyz",
            log=tmp_path / "usage-api.log",
            env=base_environment() | settings,
            grace=15,
            on_start=lambda: None,
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture(params=["Python", "TypeScript"])
async def connect(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[str], Any]]:
    """Return a function that starts a host of the usage API at an address."""
    hosts: list[Host] = []

    async def start(url: str) -> Host:
        host: Host
        if request.param == "Python":
            host = PythonHost(url)
        else:
            await in_thread(lambda: install_publisher(tmp_path))
            (tmp_path / "host.mjs").write_text(HOST)
            host = TypeScriptHost(
                await asyncio.create_subprocess_exec(
                    *(NODE, tmp_path / "host.mjs", url, KEY),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        await host.close()


async def test_plans_and_limits_decide(
    serve: Serve, connect: Callable[[str], Any], ledger: UsageLedger
) -> None:
    """Of somebody unknown, of a subscriber, and of whoever has reached a hard or a soft limit."""
    subscriber, spent, over = uuid4(), uuid4(), uuid4()
    await ledger.subscribe(subscriber, "pro")
    await ledger.report(subscriber, 200_000_000, meter="llm_cost_micros")
    await ledger.runs(spent, 1000)
    await ledger.report(spent, 1000)
    await ledger.subscribe(over, "pro")
    await ledger.report(over, 5000, meter="premium_tool_calls")
    server = serve(PLANS)
    await in_thread(server.launch_and_wait)
    host = await connect(server.url)

    assert await host.ask(Run(uuid4())) == (True, "allowed", None)
    assert await host.ask(Run(uuid4(), "browser", otherwise="open")) == (False, "denied", None)
    assert await host.ask(Run(subscriber, "browser")) == (True, "allowed", None)
    assert await host.ask(Run(spent, otherwise="open")) == (False, "limit_reached", "runs")
    assert await host.ask(Run(over, "sql-eu")) == (False, "limit_reached", "premium")
    assert await host.ask(Run(over)) == (True, "allowed", None)


async def test_user_without_a_plan_may_run_nothing(
    serve: Serve, connect: Callable[[str], Any], tmp_path: Path
) -> None:
    """Where the file denies unknown users, also if the feature is open without an answer."""
    denying = tmp_path / "plans.yaml"
    denying.write_text(PLANS.read_text().replace("unknown_users: free", "unknown_users: deny"))
    server = serve(denying)
    await in_thread(server.launch_and_wait)
    host = await connect(server.url)

    assert await host.ask(Run(uuid4(), otherwise="open")) == (False, "unknown", None)


async def test_api_that_is_stopped_killed_and_back(
    serve: Serve, connect: Callable[[str], Any]
) -> None:
    """The feature's choice holds in mid answer and without a process; then plans decide again."""
    server = serve(PLANS)
    await in_thread(server.launch_and_wait)
    host = await connect(server.url)
    known = Run(uuid4(), "browser", otherwise="open")
    assert (await host.ask(known))[1] == "denied"
    assert server.pid is not None

    os.kill(server.pid, signal.SIGSTOP)
    stopped = [
        await host.ask(Run(uuid4(), otherwise=way), budget=SHORT) for way in ("open", "closed")
    ]
    os.kill(server.pid, signal.SIGKILL)
    await in_thread(lambda: server.wait_for_exit(10))
    killed = [
        await host.ask(Run(uuid4(), otherwise=way), budget=SHORT) for way in ("open", "closed")
    ]
    cached = await host.ask(known)
    server.stop()
    await in_thread(server.launch_and_wait)

    assert stopped == killed == [(True, "no_answer", None), (False, "no_answer", None)]
    assert cached == (False, "denied", None)
    await eventually(
        lambda: host.ask(Run(uuid4(), "browser", otherwise="open"), budget=SHORT),
        lambda decided: decided[1] == "denied",
    )
