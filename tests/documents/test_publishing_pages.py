"""The code on the pages of docs/publishing runs as it stands, and publishes what it says."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from nexus_contracts import EventData, ToolExecuted, UserCreated
from support.events_api_stand_in import KEY, EventsApi, stand_in
from support.node import NODE, install_publisher, publisher_package
from support.pages import DOCS, blocks
from support.usage_api_stand_in import UsageApi, usage_api

USER = UUID("018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
RUN = UUID("018f3a52-8000-7000-8000-000000000001")
CONTRACTS: Sequence[type[EventData]] = (UserCreated, ToolExecuted)

PYTHON_HOST = """
import asyncio, uuid
from datetime import UTC, datetime
import async_job, direct_route, direct_route_gate, hub, hub_gate

user = {user!r}
asyncio.run(direct_route.call_tool(user, "weather", "forecast", {{}}))
asyncio.run(hub.invoke(user, "weather", "forecast", {{}}))
ended = async_job.EndedJob(
    uuid.UUID({run!r}), datetime.now(UTC), uuid.UUID(user), "weather", "forecast", "succeeded")
assert async_job.job_ended(ended)
assert async_job.job_ended(ended)

async def gates():
    for gate in (hub_gate, direct_route_gate):
        print(*[await gate.refusal(user, server, "forecast") for server in ("weather", "sql-eu")])

asyncio.run(gates())
"""

TYPESCRIPT_HOST = """
globalThis.Deno = { env: { get: (name) => process.env[name] } };
const { POST } = await import("./direct-route.js");
const { invoke } = await import("./hub.js");
const { jobEnded } = await import("./async-job.js");

const [userId, eventId] = process.argv.slice(2);
const names = { serverId: "weather", toolName: "forecast" };
const body = JSON.stringify({ userId, ...names, input: {} });
const answer = await POST(new Request("http://host/", { method: "POST", body }));
await invoke(userId, names.serverId, names.toolName, {});
const run = { user_id: userId, server_id: "weather", tool_name: "forecast", status: "succeeded" };
const job = { event_id: eventId, ended_at: new Date().toISOString(), run };
console.log(answer.status, await jobEnded(job), await jobEnded(job));

Date.now = () => 0; // all in one minute
const hub = await import("./hub_gate.js");
const route = await import("./direct-route_gate.js");
const servers = ["weather", "weather", "weather", "sql-eu"];
for (const server of servers) {
  const refused = await route.refusal(userId, server, "forecast");
  console.log(await hub.refusal(userId, server, "forecast"), refused?.status);
}
"""

TYPESCRIPT_TOOLS = """
export async function runTool(server: string, tool: string, input: unknown) {
  return { server, tool, input };
}
export const invokeTool = runTool;
declare global {
  const Deno: { env: { get(name: string): string | undefined } };
}
"""

TYPESCRIPT_SESSION = """
interface User { id: string; administers?: string }
export async function currentUser(): Promise<User | undefined> {
  return undefined;
}
"""

TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "target": "es2022",
        "module": "nodenext",
        "rewriteRelativeImportExtensions": True,
        "types": ["node"],
    },
    "include": ["*.ts"],
}


@pytest.fixture
async def api() -> AsyncIterator[EventsApi]:
    """Return an API that is there."""
    async with stand_in() as made:
        yield made


def runs(api: EventsApi) -> list[tuple[str, UUID]]:
    """Return the origin and the user of each run, once for each id, sorted."""
    found = {event.id: event.data for event in api.events(CONTRACTS)}
    return sorted(
        (data.origin, data.user_id) for data in found.values() if isinstance(data, ToolExecuted)
    )


def code(page: str, language: str) -> str:
    """Return the block of code in ``language`` that publishes, the first on a page."""
    return blocks(DOCS / page, language)[0]


def patient(text: str) -> str:
    """Give calls a budget that a busy machine keeps."""
    typescript = text.replace("createEntitlements({", "createEntitlements({ budgetMs: 20_000,")
    return typescript.replace('["USAGE_API_KEY"])', '["USAGE_API_KEY"], budget_seconds=20)')


def gate(page: str, language: str) -> str:
    """Return the block that gates a run, the last on a page."""
    _, block = blocks(DOCS / page, language)
    return block


@pytest.fixture
async def usage() -> AsyncIterator[UsageApi]:
    """Return a usage API whose plans have no databases, and two runs a minute."""
    async with usage_api() as made:
        made.changes = {
            "denied": [{"server_id": "sql-*", "tool_name": "*"}],
            "rate_limits": [{"server_id": "*", "per_minute": 2}],
        }
        yield made


async def run(
    api: EventsApi, folder: Path, *command: str | Path, usage: UsageApi | None = None
) -> str:
    """Run a command with the settings of the pages; return its output."""
    settings = {"METERING_URL": api.url, "METERING_KEY": KEY}
    settings |= {"METERING_SPOOL": str(folder / "spool")}
    if usage is not None:
        settings |= {"USAGE_API_URL": usage.url, "USAGE_API_KEY": KEY}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_python_of_the_pages_publishes_a_run_of_each_origin(
    api: EventsApi, usage: UsageApi, tmp_path: Path
) -> None:
    """One host has all three, and gates; a job that is reported twice is one event."""
    for page in ("direct-route", "hub", "async-job"):
        module = tmp_path / f"{page.replace('-', '_')}.py"
        module.write_text(code(f"publishing/{page}.md", "python"), encoding="utf-8")
    for page in ("direct-route", "hub"):
        module = tmp_path / f"{page.replace('-', '_')}_gate.py"
        module.write_text(patient(gate(f"publishing/{page}.md", "python")), encoding="utf-8")
    tools = "async def run_tool(*given): return given\ninvoke_tool = run_tool\n"
    (tmp_path / "tools.py").write_text(tools)
    host = tmp_path / "host.py"
    host.write_text(PYTHON_HOST.format(user=str(USER), run=str(RUN)))

    output = await run(api, tmp_path, sys.executable, host, usage=usage)

    assert output == "None denied\nNone 403\n"
    assert runs(api) == [("direct", USER), ("hub", USER), ("job", USER)]
    assert str(RUN) in api.ids


async def test_typescript_of_the_pages_publishes_a_run_of_each_origin(
    api: EventsApi, usage: UsageApi, tmp_path: Path
) -> None:
    """It compiles by the package's types, and runs on Node; a third run in a minute is refused."""
    install_publisher(tmp_path)
    for page in ("direct-route", "hub", "async-job"):
        text = code(f"publishing/{page}.md", "ts").replace('./tools"', './tools.ts"')
        (tmp_path / f"{page}.ts").write_text(text, encoding="utf-8")
    for page in ("direct-route", "hub"):
        text = patient(gate(f"publishing/{page}.md", "ts"))
        (tmp_path / f"{page}_gate.ts").write_text(text, encoding="utf-8")
    tokens = code("publishing/usage-tokens.md", "ts").replace('./session"', './session.ts"')
    (tmp_path / "usage-tokens.ts").write_text(tokens, encoding="utf-8")
    (tmp_path / "session.ts").write_text(TYPESCRIPT_SESSION)
    (tmp_path / "tools.ts").write_text(TYPESCRIPT_TOOLS)
    (tmp_path / "host.mjs").write_text(TYPESCRIPT_HOST)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    types = tmp_path / "node_modules" / "@types"
    types.symlink_to(publisher_package() / "node_modules" / "@types")
    after = tmp_path / "node_modules" / "next" / "server.js"
    after.parent.mkdir()
    after.write_text("export const after = (promise) => void promise;")
    after.with_suffix(".d.ts").write_text("export function after(promise: Promise<unknown>): void;")
    (after.parent / "package.json").write_text(
        '{"name": "next", "type": "module", "exports": {"./server": "./server.js"}}'
    )
    compiler = publisher_package() / "node_modules" / "typescript" / "bin" / "tsc"
    await run(api, tmp_path, NODE, compiler, "-p", tmp_path)

    output = await run(api, tmp_path, NODE, "host.mjs", str(USER), str(RUN), usage=usage)

    assert output.splitlines() == [
        "200 delivered delivered",
        "undefined undefined",
        "undefined undefined",
        "rate_limited undefined",
        "denied 403",
    ]
    assert runs(api) == [("direct", USER), ("hub", USER), ("job", USER)]


@pytest.mark.long
async def test_curl_of_the_first_page_publishes_a_user_and_a_run(
    api: EventsApi, tmp_path: Path
) -> None:
    """The first thing that a newcomer copies is `user.created`, then a run of this user."""
    text = (DOCS / "publishing.md").read_text(encoding="utf-8")
    (first, user_created), (second, tool_executed), *_ = BLOCK.findall(text)
    assert (first, second) == ("sh", "sh")
    bash = shutil.which("bash") or "bash"

    await run(api, tmp_path, bash, "-c", user_created)
    await run(api, tmp_path, bash, "-c", tool_executed)

    user, tool_run = api.events(CONTRACTS)
    assert isinstance(user.data, UserCreated)
    assert isinstance(tool_run.data, ToolExecuted)
    assert (user.source, user.data.user_id) == ("acme", USER)
    assert (tool_run.source, tool_run.data.user_id) == ("acme", USER)
