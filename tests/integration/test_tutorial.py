"""The tutorial's twenty lines, put where it says, in a copy of the packages, and run."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from uuid import uuid4

from local_stack.ports import free_ports
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import EVENTS
from support.databases import Clone
from support.vhost import TIER_SCALE, Vhost
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
PACKAGES = ("libs/contracts", "libs/messaging", "libs/broker-admin", "services/usage-ingest")
QUEUE = "usage-ingest.tool-rated"


def follow(tutorial: str, tree: Path) -> None:
    """Put the tutorial's three blocks of code into ``tree``."""
    contract, queue, handler = re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL)
    (tree / "libs/contracts/src/nexus_contracts/tool_rated.py").write_text(contract)
    topology = tree / "libs/messaging/src/nexus_messaging/topology.py"
    before, head, after = topology.read_text().partition("QUEUES = (\n")
    line = queue.splitlines(keepends=True)[1]
    topology.write_text(before + head + line + after)
    handlers = tree / "services/usage-ingest/src/usage_ingest/handlers.py"
    imports = "from nexus_contracts.tool_rated import ToolRated\n"
    first, *rest = handlers.read_text().partition("import asyncio\n")
    handlers.write_text("".join([first, imports, *rest, "\n\n", handler]))


async def test_tutorial_gives_a_new_event_its_consumer(
    vhost: Vhost, clone: Clone, password: str, tmp_path: Path
) -> None:
    """A rating is published and logged, one that breaks the contract becomes a dead letter."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package / "src", tmp_path / package / "src")
    follow((ROOT / "docs/tutorial.md").read_text(), tmp_path)
    (port,) = free_ports(None)
    admin = vhost.broker.admin
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(tmp_path / package / "src") for package in PACKAGES),
        "MANAGEMENT_URL": vhost.broker.management_url.replace(
            "://", f"://{admin.user}:{admin.password}@", 1
        ),
        "VHOST": vhost.name,
        "AMQP_URL": vhost.url("usage-ingest"),
        "DATABASE_URL": await clone("usage_ingest"),
        "HTTP_PORT": str(port),
        "LOG_FORMAT": "json",
        **{user.password_setting: password for user in metering_topology().users},
    }
    log = tmp_path / "log"

    apply = ("apply", "--tier-scale", str(TIER_SCALE))
    assert await run(settings, log, "nexus_broker_admin.cli", *apply) == 0, log.read_text()
    with log.open("w") as lines:
        service = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "usage_ingest", "serve"),
            env=settings,
            stdout=lines,
            stderr=lines,
        )
    try:
        for stars in (5, 6):
            body = event_of(stars)
            await vhost.publish_raw(body, "tool.rated.v1", exchange=EVENTS)

        async def text() -> str:
            return log.read_text()

        await eventually(text, lambda found: '"tool_rated"' in found, within=60)
        [letter] = await eventually(
            lambda: vhost.dead_letters(QUEUE), lambda letters: len(letters) == 1
        )
    finally:
        service.terminate()
        await service.wait()

    assert '"stars": 5' in log.read_text()
    assert letter.headers["nexus-reason"] == "invalid"
    assert "stars" in str(letter.headers["nexus-error"])


async def run(settings: dict[str, str], log: Path, module: str, *arguments: str) -> int:
    """Run a command to its end and return its exit code; ``log`` gets its output."""
    with log.open("w") as lines:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments), env=settings, stdout=lines, stderr=lines
        )
    return await process.wait()


def event_of(stars: int) -> bytes:
    """Return a rating as a publisher forms it."""
    return (
        f'{{"specversion": "1.0", "id": "{uuid4()}", "source": "test", "type": "tool.rated.v1",'
        f' "time": "2026-03-01T12:00:00Z", "data": {{"user_id": "{uuid4()}", "stars": {stars}}}}}'
    ).encode()
